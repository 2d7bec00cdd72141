"""/helios/v1/plan: where models would lie on devices, this node's or others."""

import asyncio

from aiohttp import web

from heliosd.api.asked import body_of, json_of
from heliosd.api.estimate import subject_named
from heliosd.api.estimate_plan import Subject, subject_of
from heliosd.api.estimate_target import device_like, named_target
from heliosd.api.parts import Parts
from heliosd.api.plan_answer import PlanDevice, plan_answer
from heliosd.api.routes import Answer, Route, Scope
from heliosd.errors import BadRequest
from heliosd.wire import EstimateRequest, PlanModel, PlanRequest, PlanView

MOST_REPLICAS = 1000


async def plan(request: web.Request, parts: Parts) -> web.StreamResponse:
    asked = await body_of(request, PlanRequest)
    devices = _named(asked.gpus) if asked.gpus else _here(parts)
    replicas = sum(model.replicas for model in asked.models)
    if replicas > MOST_REPLICAS:
        raise BadRequest(
            f"cannot plan {replicas} replicas at once: the limit is {MOST_REPLICAS}", code="bad_limits", param="models"
        )
    subjects = [await _subject(model, at, parts) for at, model in enumerate(asked.models)]
    # Not in the estimator's thread: others' estimates would wait for the packing of hundreds.
    return json_of(await asyncio.to_thread(plan_answer, asked, subjects, devices))


def _named(gpus: list[str]) -> list[PlanDevice]:
    return [PlanDevice(f"gpu{at}", named_target(name)) for at, name in enumerate(gpus)]


def _here(parts: Parts) -> list[PlanDevice]:
    found = [PlanDevice(account.device.id, device_like(account.device)) for account in parts.node.snapshot().devices]
    if not found:
        raise BadRequest("cannot plan: this node has no device for engines; set `gpus`", param="gpus")
    return found


async def _subject(model: PlanModel, at: int, parts: Parts) -> Subject:
    said = [name for name in ("model", "config", "hub") if getattr(model, name) is not None]
    if len(said) != 1:
        raise BadRequest(
            f"cannot tell which model is meant: set one of `model`, `config` and `hub`, not {len(said)}",
            code="missing_model",
            param=f"models.{at}",
        )
    asked = EstimateRequest(
        model=model.model, config=model.config, headers=model.headers, hub=model.hub, revision=model.revision
    )
    if model.config is None:
        subject, _ = await subject_named(asked, parts)
    else:
        subject = await parts.estimator.run(lambda: subject_of(asked))
    return Subject(model.name, subject.model, subject.stored) if model.name else subject


ROUTES = (
    Route(
        "POST",
        "/helios/v1/plan",
        plan,
        Scope.ADMIN,
        "Plan which models share which devices.",
        Answer("where each lies, what is left over, and how full each device is", PlanView),
        body=PlanRequest,
        detail="Nothing is started. A model is divided over as few equal devices as hold it; when not all fit, those "
        "of most worth together are placed; what is left on a device is dealt out as KV cache.",
        errors=("missing_model", "model_not_found", "bad_config", "bad_limits", "bad_precision", "unknown_gpu"),
        reads=True,
    ),
)
