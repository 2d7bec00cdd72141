"""/helios/v1/pins: models that are kept ready, asked for or not."""

from aiohttp import web

from heliosd.api.asked import body_of, json_of, ref_of
from heliosd.api.parts import Parts
from heliosd.api.plans import plan_of, start_step, write_step
from heliosd.api.routes import Answer, Route, Scope
from heliosd.errors import NotFound
from heliosd.node.operating import Wish
from heliosd.wire import ChangePlan, PinList, PinModel, PinView


async def list_pins(request: web.Request, parts: Parts) -> web.StreamResponse:
    pinned = await parts.node.wanted.pinned()
    return json_of(PinList(pins=[PinView(model=model, replicas=replicas) for model, replicas in pinned.items()]))


async def pin(request: web.Request, parts: Parts) -> web.StreamResponse:
    ref = ref_of(request.match_info["model"])
    asked = await body_of(request, PinModel)
    await parts.node.wanted.pin(ref, asked.replicas)
    parts.journal.note("pin", f"{asked.replicas} replicas of {ref} are kept ready from now on", model=str(ref))
    return json_of(PinView(model=str(ref), replicas=asked.replicas))


async def unpin(request: web.Request, parts: Parts) -> web.StreamResponse:
    ref = ref_of(request.match_info["model"])
    await parts.node.wanted.unpin(ref)
    parts.journal.note("pin", f"{ref} is no longer kept ready", model=str(ref))
    return json_of(PinView(model=str(ref), replicas=0))


async def pin_plan(request: web.Request, parts: Parts) -> ChangePlan:
    ref = ref_of(request.match_info["model"])
    asked = await body_of(request, PinModel)
    scaled = await parts.node.operator.plan_scale(ref, asked.replicas, Wish())
    steps = [write_step(scaled.model, f"{asked.replicas} are kept ready from then on, also after a restart")]
    return plan_of(f"{scaled.model} would be kept ready", [*steps, *map(start_step, scaled.starts)])


async def unpin_plan(request: web.Request, parts: Parts) -> ChangePlan:
    ref = ref_of(request.match_info["model"])
    stored = await parts.store.find(ref)
    model = str(stored.ref) if stored else str(ref)
    if model not in await parts.node.wanted.pinned():
        raise NotFound(f"cannot unpin {model}: it is not pinned; `heliosctl pin` lists what is", code="pin_not_found")
    why = "what runs stays until it is idle for its keep-alive, or others need its room"
    return plan_of(f"{model} would no longer be kept ready", [write_step(model, why, what="remove")])


ROUTES = (
    Route(
        "GET",
        "/helios/v1/pins",
        list_pins,
        Scope.ADMIN,
        "The models that are pinned.",
        Answer("pins", PinList),
    ),
    Route(
        "PUT",
        "/helios/v1/pins/{model:.+}",
        pin,
        Scope.ADMIN,
        "Keep a model ready, asked for or not.",
        Answer("the pin", PinView),
        body=PinModel,
        detail="It is started as soon as there is room, or idle models make it, and is never sent away for others. "
        "A pin outlives a restart.",
        errors=("model_not_found",),
        preview=pin_plan,
    ),
    Route(
        "DELETE",
        "/helios/v1/pins/{model:.+}",
        unpin,
        Scope.ADMIN,
        "Treat a model like any other again.",
        Answer("the pin, with no replicas", PinView),
        errors=("pin_not_found",),
        preview=unpin_plan,
    ),
)
