"""Writes the API down: as OpenAPI 3.1, and as docs/api.md for people.

`python -m heliosd.api.openapi` prints docs/api.md, with `--json` openapi.json.
"""

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from heliosd import __version__
from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Route, Scope
from heliosd.api.table import ROUTES as TABLE
from heliosd.wire import ChangePlan, ErrorBody

_PATTERN = re.compile(r"\{(\w+)(?::[^}]*)?\}")

_KEYS = {
    Scope.OPEN: "Needs no key.",
    Scope.USE: "Needs a key over TCP once a key exists or the port is open to other machines.",
    Scope.ADMIN: "Needs an admin key over TCP.",
    Scope.PEERS: "Needs an admin key over TCP, or comes from a node of the cluster.",
}

_OF_CHANGES = [
    {
        "name": "dry_run",
        "in": "query",
        "description": "answer with the plan (ChangePlan), and change nothing",
        "schema": {"type": "boolean"},
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "the same request under the same key is carried out once within a day, and answered as often",
        "schema": {"type": "string", "maxLength": 255},
    },
    {
        "name": "X-Helios-Reason",
        "in": "header",
        "description": "why, for the audit",
        "schema": {"type": "string"},
    },
]


async def openapi_json(request: web.Request, parts: Parts) -> web.StreamResponse:
    return web.Response(body=json.dumps(document(ROUTES)).encode(), content_type="application/json")


ROUTES: tuple[Route, ...] = (
    *TABLE,
    Route(
        "GET",
        "/openapi.json",
        openapi_json,
        Scope.OPEN,
        "This API as OpenAPI 3.1.",
        Answer("the document"),
        group="machines",
    ),
)
"""Every route there is."""


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The API as an OpenAPI 3.1 document."""
    routes = tuple(routes)
    models = {model: None for route in routes for model in _models(route)} | {ErrorBody: None}
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(plain_path(route), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Helios",
            "version": __version__,
            "summary": "One daemon per GPU machine that serves any model it knows.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def plain_path(route: Route) -> str:
    """The path as people write it: `/helios/v1/models/{ref}`."""
    return _PATTERN.sub(r"{\1}", route.path)


def _models(route: Route) -> Iterable[type[BaseModel]]:
    preview = ChangePlan if route.changes else None
    yield from (model for model in (route.body, route.answer.model, route.answer.other, preview) if model is not None)
    yield from (model for _, model in route.answer.events)


def _operation(route: Route) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATTERN.findall(route.path)
    ]
    parameters += [
        {"name": p.name, "in": "query", "description": p.text, "schema": {"type": p.kind}} for p in route.parameters
    ]
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": " ".join(filter(None, [route.detail, _KEYS[route.scope]])),
        "tags": [route.group],
        "operationId": _operation_id(route),
        "parameters": parameters,
        "responses": {
            "200": {"description": route.answer.text, "content": _content(route.answer)},
            "default": {"description": "an error", "content": {"application/json": {"schema": _ref(ErrorBody)}}},
        },
        "security": [] if route.scope is Scope.OPEN else [{}, {"bearer": []}, {"header": []}],
    }
    if route.changes:
        operation["parameters"] += _OF_CHANGES
        answered = operation["responses"]["200"]["content"].setdefault("application/json", {"schema": {"oneOf": []}})
        models = [model for model in (route.answer.model, route.answer.other, ChangePlan) if model is not None]
        answered["schema"] = {"oneOf": [_ref(model) for model in models]}
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(route.body)}},
        }
    elif route.group == "inference" and route.method == "POST":
        operation["requestBody"] = {
            "description": "Passed to vLLM as it is; Helios reads `model` only.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    return operation


def _content(answer: Answer) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if answer.model is not None:
        content["application/json"] = {"schema": _ref(answer.model)}
    if answer.events:
        names = " or ".join(f"`{name}`" for name, _ in answer.events)
        content["text/event-stream"] = {
            "schema": {
                "description": f"The `data` of each event, which is named {names}.",
                "oneOf": [_ref(model) for _, model in answer.events],
            }
        }
    return content or {answer.media: {"schema": {"type": "string"} if answer.media.startswith("text/") else {}}}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _operation_id(route: Route) -> str:
    return "_".join([route.method.lower(), *re.findall(r"\w+", plain_path(route))])


def main(arguments: list[str]) -> None:
    """Print docs/api.md, or with `--json` the OpenAPI document."""
    from heliosd.api.page import page

    text = json.dumps(document(ROUTES), indent=2) + "\n" if "--json" in arguments else page(ROUTES)
    sys.stdout.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
