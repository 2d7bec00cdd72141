"""How an error looks to a client: OpenAI's shape everywhere, Anthropic's on its own paths. Decides no status."""

import json
import math
import re
from typing import Any

from aiohttp import web

from heliosd.errors import HeliosError
from heliosd.wire import ErrorBody, ErrorDetail

MESSAGES_PATH = "/v1/messages"
"""Anthropic's clients ask below this path and expect errors in Anthropic's shape."""

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}

# What engines say when a prompt is too long, in the words of their different endpoints.
_TOO_LONG = re.compile(
    "maximum context length|exceeds the max_model_len|longer than the maximum model length|less than max_model_len"
)

_ENGINE_CODES = {
    400: "invalid_request",
    404: "not_found",
    422: "invalid_request",
    429: "overloaded",
    501: "not_supported",
    503: "unavailable",
}


class HttpFault(HeliosError):
    """The request is wrong as HTTP, before anything of Helios was asked."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message, code=code)
        self.status = status


def helios_error(error: BaseException) -> HeliosError | None:
    """The first of Helios' own in an error, which may be a task group's; None when there is none."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(helios_error, error.exceptions)), None)
    return error if isinstance(error, HeliosError) else None


def error_body(error: HeliosError) -> ErrorBody:
    """The body of an error in OpenAI's shape."""
    return ErrorBody(
        error=ErrorDetail(
            message=error.message,
            type=_openai_type(error.status),
            code=error.code,
            param=getattr(error, "param", None),
            cause=error.cause,
        )
    )


def error_bytes(error: HeliosError, *, anthropic: bool) -> bytes:
    """The body of an error as JSON, in the shape the caller understands."""
    if not anthropic:
        return error_body(error).model_dump_json().encode()
    detail = {"type": _anthropic_type(error.status), "message": error.message, "code": error.code}
    if error.cause:
        detail["cause"] = error.cause
    return json.dumps({"type": "error", "error": detail}).encode()


def error_response(error: HeliosError, path: str) -> web.Response:
    """The whole answer to a request for `path` that failed before anything was written."""
    headers = {}
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        status=error.status,
        body=error_bytes(error, anthropic=speaks_anthropic(path)),
        content_type="application/json",
        headers=headers,
    )


def speaks_anthropic(path: str) -> bool:
    """Whether a client of this path expects Anthropic's shapes."""
    return path == MESSAGES_PATH or path.startswith(MESSAGES_PATH + "/")


def with_stable_code(status: int, body: bytes, *, anthropic: bool) -> bytes:
    """An engine's own error body, with a stable word as `code` where it has only the HTTP status.

    The message and everything else stay as the engine wrote them; what is no error body is returned unchanged.
    """
    try:
        content: Any = json.loads(body)
        detail = content["error"]
        message = str(detail["message"])
    except (ValueError, TypeError, KeyError):
        return body
    if status == 404 and message == "Not Found":  # the engine has no such path, because its model cannot do that
        detail["code"] = "not_supported"
        detail["message"] = "cannot do this with the model: its engine does not offer this path"
    elif not isinstance(detail.get("code"), str):
        detail["code"] = _engine_code(status, message)
    if anthropic and not str(detail.get("type", "")).endswith("_error"):
        detail["type"] = _anthropic_type(status)
    return json.dumps(content).encode()


def _engine_code(status: int, message: str) -> str:
    if status in (400, 413, 422) and _TOO_LONG.search(message):
        return "context_length_exceeded"
    if status == 404 and "model" in message:
        return "model_not_found"
    return _ENGINE_CODES.get(status, "engine_error" if status >= 500 else "bad_request")


def _openai_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _anthropic_type(status: int) -> str:
    return _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
