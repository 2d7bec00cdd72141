"""Reads of a request body which model it is for and what it will cost; the rest engines check."""

import asyncio
import json
import re
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from heliosd.api.errors import HttpFault
from heliosd.api.work import Work, work_of
from heliosd.core.names import ModelRef, parse_ref
from heliosd.core.units import KiB
from heliosd.errors import BadRequest, NotFound

_LARGE_BYTES = 256 * KiB
"""Takes up to 2 ms to read; a thread costs some 0.1 ms."""

_NAME = re.compile(rb'content-disposition:[^\r\n]*;\s*name="?model"?\s*(?:;|\r|$)', re.IGNORECASE)


class _Body(BaseModel):
    """pydantic parses the JSON without making Python objects of what is not asked for."""

    model_config = ConfigDict(extra="ignore")

    model: Any = None
    stream: Any = None
    # What `api.work` looks at.
    system: Any = None
    instructions: Any = None
    messages: Any = None
    prompt: Any = None
    input: Any = None
    query: Any = None
    documents: Any = None
    texts: Any = None
    cache_salt: Any = None
    n: Any = None
    max_completion_tokens: Any = None
    max_tokens: Any = None
    max_output_tokens: Any = None


ANSWERING = frozenset(
    {"/v1/chat/completions", "/v1/chat/completions/batch", "/v1/completions", "/v1/responses", "/v1/messages"}
)
"""Paths on which a model writes, as a stream where `stream` is true."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a body tells before an engine reads it."""

    ref: ModelRef
    name: str
    """The model as it is written in the body."""
    streams: bool = False
    """The answer is to come as server-sent events."""
    work: Work = field(default_factory=Work)


def check_content_type(content_type: str) -> None:
    """Raise HttpFault (415) for a body that cannot be read.

    JSON is never read under another name, or under none: a web page may send such a body to this machine unasked.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/json", "multipart/form-data") or (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        return
    raise HttpFault(
        415,
        "unsupported_content_type",
        f"cannot read a body of the content type {kind or '(none)'}: send `Content-Type: application/json` "
        "(with curl: -H 'Content-Type: application/json'), or multipart/form-data with a file",
    )


async def read_question(body: bytes, content_type: str, path: str) -> Question:
    """As `question_of`; what takes long is done in a thread."""
    if len(body) < _LARGE_BYTES:
        return question_of(body, content_type, path)
    return await asyncio.to_thread(question_of, body, content_type, path)


async def rename_model(body: bytes, content_type: str, name: str) -> bytes:
    """As `with_model`; what takes long is done in a thread."""
    if len(body) < _LARGE_BYTES:
        return with_model(body, content_type, name)
    return await asyncio.to_thread(with_model, body, content_type, name)


def question_of(body: bytes, content_type: str, path: str) -> Question:
    """What a JSON or multipart body asks of which model.

    Raises BadRequest (`malformed_json`, `missing_model`), or NotFound for what cannot be a model's name.
    """
    if _is_form(content_type):
        return Question(*_named(_from_form(body, content_type)))
    read, answers = _from_json(body), path in ANSWERING
    ref, name = _named(read.model)
    return Question(ref, name, answers and read.stream is True, work_of(vars(read), answers=answers))


def _named(name: Any) -> tuple[ModelRef, str]:
    if name is None or name == "":
        raise BadRequest("cannot tell which model is meant: set `model`", code="missing_model", param="model")
    if not isinstance(name, str):
        raise BadRequest("cannot read `model`: it must be a string", code="missing_model", param="model")
    try:
        return parse_ref(name), name
    except ValueError as error:
        raise NotFound(str(error), code="model_not_found") from error


def with_model(body: bytes, content_type: str, name: str) -> bytes:
    """The body `question_of` has read, with another name of the model in it: engines know only one."""
    if not _is_form(content_type):
        return json.dumps(json.loads(body) | {"model": name}).encode()
    start, end = _span_in_form(body, content_type) or (0, 0)
    return body[:start] + name.encode() + body[end:]


def _is_form(content_type: str) -> bool:
    return content_type.lower().startswith("multipart/")


def _from_json(body: bytes) -> _Body:
    try:
        return _Body.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        words = problem["msg"].removeprefix("Invalid JSON: ")
        if problem["type"] != "json_invalid":
            words = "it must be a JSON object"
        raise BadRequest(f"cannot read the request body: {words}", code="malformed_json") from error


def _from_form(body: bytes, content_type: str) -> str | None:
    span = _span_in_form(body, content_type)
    return span and body[slice(*span)].decode(errors="replace").strip()


def _span_in_form(body: bytes, content_type: str) -> tuple[int, int] | None:
    """Where the value of the form's field `model` begins and ends."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise BadRequest("cannot read the form: its content type names no boundary", code="malformed_form")
    # The values are searched, not parsed: an audio file of many megabytes is only passed over.
    line = b"--" + boundary.encode("latin-1", "replace")
    start = body.find(line)
    while start >= 0:
        start += len(line)
        following = body.find(line, start)
        end = following if following >= 0 else len(body)
        gap = body.find(b"\r\n\r\n", start, end)
        if gap >= 0 and _NAME.search(body[start:gap] + b"\r"):
            return gap + 4, len(body[gap + 4 : end].removesuffix(b"\r\n")) + gap + 4
        start = following
    return None
