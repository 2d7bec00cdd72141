"""/helios/v1/estimate: what a model would take, here or on any other device, and whether it is to be had."""

import json
from dataclasses import replace

from aiohttp import web

from heliosd.api.asked import json_of, ref_of
from heliosd.api.errors import HttpFault
from heliosd.api.estimate_batch import MOST_ENTRIES, NDJSON, send_batch
from heliosd.api.estimate_plan import Subject, subject_from
from heliosd.api.estimate_target import Target, target_here
from heliosd.api.estimate_views import accuracy_view
from heliosd.api.estimator import Answered, parse_estimate, wants_this_node
from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Parameter, Route, Scope
from heliosd.api.views import estimate_view
from heliosd.core.adapters import room_for
from heliosd.core.units import MiB, format_bytes
from heliosd.errors import BadRequest, NotFound
from heliosd.wire import AccuracyView, BatchAnswer, EstimateBatch, EstimateRequest, EstimateView

MOST_BYTES = 8 * MiB
"""Of a request for one estimate; the largest published configurations have a tenth of it."""


async def ask(request: web.Request, parts: Parts) -> web.StreamResponse:
    body, here = await _read(request, MOST_BYTES), _here(parts)
    found = await parts.estimator.run(lambda: parts.estimator.from_text(body, here, changes=True))
    if isinstance(found, EstimateRequest):
        found = await _looked_up(found, parts, here, changes=True)
    return _response(found)


async def ask_by_query(request: web.Request, parts: Parts) -> web.StreamResponse:
    if "model" not in request.query:
        raise BadRequest("cannot tell which model is meant: set `model`", code="missing_model", param="model")
    asked = parse_estimate(json.dumps(dict(request.query)).encode())
    return _response(await _looked_up(asked, parts, _here(parts), changes=True))


async def ask_many(request: web.Request, parts: Parts) -> web.StreamResponse:
    body, here = await _read(request, parts.max_body_bytes), _here(parts)
    return await send_batch(
        request, body, parts.estimator, here, lambda asked: _looked_up(asked, parts, here, changes=False)
    )


async def accuracy(request: web.Request, parts: Parts) -> web.StreamResponse:
    found = await parts.accuracy()
    return json_of(accuracy_view(found))


async def _read(request: web.Request, most_bytes: int) -> bytes:
    """The body, and not a byte more than is allowed: whoever says beforehand that it is longer sends it in vain."""
    if (request.content_length or 0) > most_bytes:
        raise _too_large(most_bytes)
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
    return bytes(body)


def _too_large(most_bytes: int) -> HttpFault:
    return HttpFault(
        413, "body_too_large", f"cannot take a request of more than {format_bytes(most_bytes)} for an estimate"
    )


def _here(parts: Parts) -> Target | None:
    return target_here(account.device for account in parts.node.snapshot().devices)


async def _looked_up(asked: EstimateRequest, parts: Parts, here: Target | None, *, changes: bool) -> Answered:
    """The answer about a model of the store, or of the hub."""
    if wants_this_node(asked):
        judgement = await parts.node.judge(
            ref_of(asked.model or ""),
            kv_cache_bytes=asked.kv_cache_bytes,
            max_model_len=asked.max_model_len,
            max_num_seqs=asked.max_num_seqs,
        )
        return Answered(estimate_view(judgement).model_dump_json().encode(), cached=False)
    subject, content = await subject_named(asked, parts)
    return await parts.estimator.run(
        lambda: parts.estimator.from_subject(asked, subject, content, here, changes=changes)
    )


async def subject_named(asked: EstimateRequest, parts: Parts) -> tuple[Subject, str]:
    """The model of the store or of the hub, and what tells its content from others. Raises NotFound."""
    if asked.hub is not None:
        known, commit = await parts.hub_headers(asked.hub, asked.revision)
        return subject_from(known, asked.hub, asked.quantize), commit
    ref = ref_of(asked.model or "")
    stored = await parts.store.find(ref)
    if stored is None:
        raise NotFound(
            f"cannot find the model {ref}: it is not in the store; `heliosctl ls` lists what is, and `config` or "
            "`hub` asks for others",
            code="model_not_found",
        )
    if stored.adapter is None:
        return subject_from(await parts.store.known(stored), str(stored.ref), asked.quantize), str(stored.revision)
    base = await parts.store.find(stored.adapter.base)
    if base is None:
        raise NotFound(f"cannot estimate {ref}: its base {stored.adapter.base} was removed", code="model_not_found")
    subject = subject_from(await parts.store.known(base), str(stored.ref), asked.quantize)
    room = room_for([stored.adapter.rank], {})
    return replace(subject, adapters=room), f"{base.revision} with {room} for {stored.ref}"


def _response(found: Answered) -> web.Response:
    state = "hit" if found.cached else "miss"
    return web.Response(body=found.body, content_type="application/json", headers={"X-Helios-Cache": state})


_ANSWER = Answer("predicted bytes on each device, and the verdict", EstimateView)
_ERRORS = (
    "model_not_found",
    "bad_config",
    "bad_limits",
    "bad_precision",
    "bad_training_plan",
    "unknown_gpu",
    "body_too_large",
)

ROUTES = (
    Route(
        "POST",
        "/helios/v1/estimate",
        ask,
        Scope.ADMIN,
        "Predict what a model takes here or on any other device, and whether it fits.",
        _ANSWER,
        body=EstimateRequest,
        detail="A model that never fits is an answer, not an error: see `verdict` and `reason`. A `config` is answered "
        f"without the store and without a GPU; equal requests are answered from memory for ten minutes, which "
        f"`X-Helios-Cache: hit` tells. At most {format_bytes(MOST_BYTES)}.",
        errors=_ERRORS,
        reads=True,
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
    Route(
        "POST",
        "/helios/v1/estimate/batch",
        ask_many,
        Scope.ADMIN,
        "Many estimates in one call.",
        Answer("in the order of the entries", BatchAnswer),
        body=EstimateBatch,
        detail=f"Up to {MOST_ENTRIES:,} entries, models and configurations mixed. What is wrong with one is the "
        f"`error` of that one. With `Accept: {NDJSON}` each answer is a line, sent as it is calculated.",
        errors=("malformed_json", "bad_limits", "body_too_large"),
        reads=True,
    ),
    Route(
        "GET",
        "/helios/v1/estimate/accuracy",
        accuracy,
        Scope.ADMIN,
        "How near estimates came to what was measured here.",
        Answer("by term, and of the total", AccuracyView),
    ),
)
