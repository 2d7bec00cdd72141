"""Finds out which model a request body is for, without understanding the rest: engines check that."""

import json
import re
from email.message import Message
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from heliosd.core.names import ModelRef, parse_ref
from heliosd.errors import BadRequest, NotFound

_NAME = re.compile(rb'content-disposition:[^\r\n]*;\s*name="?model"?\s*(?:;|\r|$)', re.IGNORECASE)


class _Body(BaseModel):
    """pydantic parses the JSON without making Python objects of what is not asked for."""

    model_config = ConfigDict(extra="ignore")

    model: Any = None


def model_of(body: bytes, content_type: str) -> tuple[ModelRef, bytes]:
    """The model a JSON or multipart body names, and the body for the engine.

    That is the same bytes, unless the default revision was written out: engines know their model without it.
    Raises BadRequest (`malformed_json`, `missing_model`), or NotFound for what cannot be a model's name.
    """
    form = content_type.startswith("multipart/")
    name = _from_form(body, content_type) if form else _from_json(body)
    if name is None or name == "":
        raise BadRequest("cannot tell which model is meant: set `model`", code="missing_model", param="model")
    if not isinstance(name, str):
        raise BadRequest("cannot read `model`: it must be a string", code="missing_model", param="model")
    try:
        ref = parse_ref(name)
    except ValueError as error:
        raise NotFound(str(error), code="model_not_found") from error
    if name != str(ref) and not form:
        body = json.dumps(json.loads(body) | {"model": str(ref)}).encode()
    return ref, body


def _from_json(body: bytes) -> Any:
    try:
        return _Body.model_validate_json(body).model
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        words = problem["msg"].removeprefix("Invalid JSON: ")
        if problem["type"] != "json_invalid":
            words = "it must be a JSON object"
        raise BadRequest(f"cannot read the request body: {words}", code="malformed_json") from error


def _from_form(body: bytes, content_type: str) -> str | None:
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise BadRequest("cannot read the form: its content type names no boundary", code="malformed_form")
    # The values are searched, not parsed: an audio file of many megabytes is only passed over.
    for part in body.split(b"--" + boundary.encode("latin-1", "replace")):
        head, gap, value = part.partition(b"\r\n\r\n")
        if gap and _NAME.search(head + b"\r"):
            return value.removesuffix(b"\r\n").decode(errors="replace").strip()
    return None
