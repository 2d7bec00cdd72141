"""Reads what a request asks for: its body, its query, the model in its path. Raises BadRequest in clear words."""

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from heliosd.core.names import ModelRef, parse_ref
from heliosd.errors import BadRequest

Body = TypeVar("Body", bound=BaseModel)


async def body_of(request: web.Request, kind: type[Body]) -> Body:
    """The request's JSON body as a model."""
    return parse_body(await request.read(), kind)


def parse_body(body: bytes, kind: type[Body]) -> Body:
    """Raises BadRequest: `malformed_json`, or `bad_request` naming the field."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        if problem["type"] == "json_invalid":
            words = problem["msg"].removeprefix("Invalid JSON: ")
            raise BadRequest(f"cannot read the request body: {words}", code="malformed_json") from error
        field = ".".join(str(part) for part in problem["loc"]) or None
        known = ", ".join(kind.model_fields)
        words = f"unknown; known are: {known}" if problem["type"] == "extra_forbidden" else problem["msg"]
        raise BadRequest(f"cannot accept `{field or 'the body'}`: {words}", param=field) from error


def ref_of(text: str) -> ModelRef:
    """A model's ref. Raises BadRequest (`bad_model_name`)."""
    try:
        return parse_ref(text)
    except ValueError as error:
        raise BadRequest(str(error), code="bad_model_name", param="model") from error


def number_of(request: web.Request, name: str, default: int, *, least: int = 0, most: int) -> int:
    """A number in the query. Raises BadRequest when it is none or out of bounds."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise BadRequest(f"cannot accept {name}={text}: it must be a number from {least} to {most}", param=name)
    return number


def flag_of(request: web.Request, name: str) -> bool:
    """Whether a switch in the query is on: `1`, `true` or `yes`."""
    return request.query.get(name, "").lower() in ("1", "true", "yes")


def json_of(view: BaseModel, status: int = 200) -> web.Response:
    """A model as the whole answer."""
    return web.Response(status=status, body=view.model_dump_json().encode(), content_type="application/json")
