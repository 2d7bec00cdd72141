"""/helios/v1/estimate: what a model would take here and whether it is to be had."""

import json

from aiohttp import web

from heliosd.api.asked import body_of, json_of, parse_body, ref_of
from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Parameter, Route, Scope
from heliosd.api.views import estimate_view
from heliosd.errors import BadRequest
from heliosd.wire import EstimateRequest, EstimateView


async def ask(request: web.Request, parts: Parts) -> web.StreamResponse:
    return await _answer(await body_of(request, EstimateRequest), parts)


async def ask_by_query(request: web.Request, parts: Parts) -> web.StreamResponse:
    if "model" not in request.query:
        raise BadRequest("cannot tell which model is meant: set `model`", code="missing_model", param="model")
    numbers = {name: value for name, value in request.query.items() if name != "model"}
    fields = {"model": request.query["model"], **numbers}
    return await _answer(parse_body(json.dumps(fields).encode(), EstimateRequest), parts)


async def _answer(asked: EstimateRequest, parts: Parts) -> web.StreamResponse:
    judgement = await parts.node.judge(
        ref_of(asked.model),
        kv_cache_bytes=asked.kv_cache_bytes,
        max_model_len=asked.max_model_len,
        max_num_seqs=asked.max_num_seqs,
    )
    return json_of(estimate_view(judgement))


_ANSWER = Answer("predicted bytes on each device, and the verdict", EstimateView)

ROUTES = (
    Route(
        "POST",
        "/helios/v1/estimate",
        ask,
        Scope.ADMIN,
        "Predict what a model takes here, and whether it fits.",
        _ANSWER,
        body=EstimateRequest,
        detail="A model that never fits is an answer, not an error: see `verdict` and `reason`.",
        errors=("model_not_found",),
    ),
    Route(
        "GET",
        "/helios/v1/estimate",
        ask_by_query,
        Scope.ADMIN,
        "The same with the fields in the query.",
        _ANSWER,
        parameters=(
            Parameter("model", "string", "a model's ref"),
            Parameter("kv_cache_bytes", "integer", "KV cache on each device"),
            Parameter("max_model_len", "integer", "longest context in tokens"),
            Parameter("max_num_seqs", "integer", "sequences at once"),
        ),
        errors=("model_not_found",),
    ),
)
