"""Models: /helios/v1/models to look after them, /v1/models as OpenAI's and Anthropic's clients list them."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from heliosd.api.asked import body_of, flag_of, json_of, ref_of
from heliosd.api.beforehand import check_fits
from heliosd.api.errors import error_body
from heliosd.api.parts import Parts, Progress, Stored
from heliosd.api.plans import plan_of, write_step
from heliosd.api.progress import watched
from heliosd.api.routes import Answer, Parameter, Route, Scope
from heliosd.api.sse import event_stream, frame
from heliosd.api.tracing import work
from heliosd.api.views import estimate_view, model_detail, model_view, peer_model_view
from heliosd.core.lifecycle import State
from heliosd.core.names import ModelRef, kept_ref
from heliosd.core.units import format_bytes
from heliosd.errors import BadRequest, Conflict, HeliosError, NotFound
from heliosd.store.stored import Addition, checked_alias, default_ref
from heliosd.wire import (
    AddModel,
    ChangePlan,
    ChangeStep,
    ErrorBody,
    ModelDetail,
    ModelList,
    ModelView,
    ProgressView,
    Removed,
)


async def list_models(request: web.Request, parts: Parts) -> web.StreamResponse:
    stored = await parts.store.models()
    replicas = parts.node.snapshot().replicas
    views = [model_view(model, replicas, _tier(parts, model)) for model in stored]
    if not flag_of(request, "local"):
        views += [peer_model_view(ref, peer) for ref, peer in _at_peers(parts, stored).items()]
    return json_of(ModelList(models=views))


async def show_model(request: web.Request, parts: Parts) -> web.StreamResponse:
    stored = await _find(parts, ref_of(request.match_info["ref"]))
    try:
        estimate = estimate_view(await parts.node.judge(stored.ref))
    except HeliosError:  # a model can be shown without it; `estimate` tells why there is none
        estimate = None
    replicas = parts.node.snapshot().replicas
    return json_of(model_detail(stored, replicas, parts.settings(stored.ref), estimate, _tier(parts, stored)))


def _tier(parts: Parts, stored: Stored) -> str | None:
    return parts.tiers.tier_of(stored.manifest) if parts.tiers else None


async def _removable(request: web.Request, parts: Parts) -> ModelRef:
    """What is to be removed. Raises NotFound, and Conflict while a replica uses it."""
    ref = ref_of(request.match_info["ref"])
    stored = await parts.store.find(ref)
    target = ref if stored is None else stored.ref  # the store also gives up a download that was interrupted
    names = {str(target)}
    if stored is not None and stored.of is None:
        names |= {str(kept_ref(target, past.revision)) for past in await parts.store.past(target)}
    users = [
        replica.id
        for replica in parts.node.snapshot().replicas
        if replica.model in names and replica.state not in (State.STOPPED, State.FAILED)
    ]
    if users:
        raise Conflict(
            f"cannot remove {target}: {', '.join(users)} uses it; stop it first with `heliosctl stop {target}`",
            code="model_in_use",
        )
    return target


async def remove_model_plan(request: web.Request, parts: Parts) -> ChangePlan:
    target = await _removable(request, parts)
    stored = await parts.store.models()
    if adapters := [str(each.ref) for each in stored if each.adapter and each.adapter.base == target]:
        raise Conflict(
            f"cannot remove {target}: {', '.join(adapters)} are adapters of it; remove them first",
            code="model_has_adapters",
        )
    usage = await parts.store.usage()
    frees_bytes = next((each.frees_bytes for each in usage.models if each.ref == str(target)), 0)
    why = "nobody uses it; what other models share with it stays. To have it back it is fetched again"
    step = write_step(str(target), why, what="remove", frees_bytes=frees_bytes)
    return plan_of(f"{target} would be removed", [step])


async def add_model_plan(request: web.Request, parts: Parts) -> ChangePlan:
    asked = await body_of(request, AddModel)
    wanted = _addition(asked)
    ref = wanted.ref or default_ref(wanted)
    if asked.alias:
        checked_alias(asked.alias)
    size_bytes = 0
    if wanted.source == "hub":
        await check_fits(parts, wanted, ref, anyway=asked.anyway)
        size_bytes = (await parts.hub_glance(wanted.location, wanted.revision)).profile.weights_bytes
    elif not await asyncio.to_thread(Path(wanted.location).exists):
        raise BadRequest(f"cannot add {wanted.location}: there is no such file or folder", param="location")
    there = await parts.store.find(ref)
    why = f"from {wanted.source} {wanted.location}"
    why += f"; {ref} means {there.revision[:12]} now, and means the new one then" if there else ""
    step = ChangeStep(what="add", subject=str(ref), takes_bytes=size_bytes, reason=why)
    return plan_of(f"{ref} would be brought into the store", [step])


async def remove_model(request: web.Request, parts: Parts) -> web.StreamResponse:
    target = await _removable(request, parts)
    freed_bytes = await parts.store.remove(target)
    parts.journal.note("model", f"{target} was removed, {format_bytes(freed_bytes)} are free", model=str(target))
    return json_of(Removed(ref=str(target), freed_bytes=freed_bytes))


async def add_model(request: web.Request, parts: Parts) -> web.StreamResponse:
    """Bring a model in while somebody watches; who asks again goes on where it stopped."""
    asked = await body_of(request, AddModel)
    wanted = _addition(asked)
    allowed = parts.settings(wanted.ref or default_ref(wanted)).get("allow_pickle", False)
    wanted = replace(wanted, allow_pickle=asked.allow_pickle or allowed)
    async with event_stream(request) as (stream, response):
        ref = wanted.ref or default_ref(wanted)

        async def add(tell: Callable[[Progress], None]) -> Stored:
            await check_fits(parts, wanted, ref, anyway=asked.anyway)
            with work(parts, "fetch", {"helios.model": str(ref), "helios.source": wanted.source}):
                return await parts.store.add(wanted, _noted(parts, ref, tell) if wanted.source == "hub" else tell)

        outcome = await watched(stream, add)
        if isinstance(outcome, HeliosError):
            await stream.send(frame("error", error_body(outcome)))
        else:
            parts.journal.note("model", f"{outcome.ref} was added from {outcome.source}", model=str(outcome.ref))
            await stream.send(frame("done", model_view(outcome, parts.node.snapshot().replicas)))
    return response


def _addition(asked: AddModel) -> Addition:
    return Addition(
        source=asked.source,
        location=asked.location,
        ref=ref_of(asked.ref) if asked.ref else None,
        revision=asked.revision,
        alias=asked.alias,
        base=ref_of(asked.base) if asked.base else None,
    )


def _noted(parts: Parts, ref: ModelRef, tell: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """The same, with the beginning of a fetch in the journal."""
    begun = False

    def told(progress: Progress) -> None:
        nonlocal begun
        if progress.phase == "fetch" and not begun:
            begun = True
            total = format_bytes(progress.total_bytes or 0)
            parts.journal.note("model", f"{ref} is being fetched: {total} in all", model=str(ref))
        tell(progress)

    return told


async def list_for_clients(request: web.Request, parts: Parts) -> web.StreamResponse:
    stored = await parts.store.models()
    whole = {model.ref: model for model in stored if model.adapter is None}
    rows = [_client_row(request, model, whole.get(model.adapter.base) if model.adapter else None) for model in stored]
    rows += [_peer_row(request, ref, peer) for ref, peer in _at_peers(parts, stored).items()]
    if _anthropic(request):
        ends = {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]} if rows else {"first_id": None, "last_id": None}
        return web.json_response({"data": rows, "has_more": False, **ends})
    return web.json_response({"object": "list", "data": rows})


async def show_for_clients(request: web.Request, parts: Parts) -> web.StreamResponse:
    ref = request.match_info["id"]
    stored = await parts.store.find(ref_of(ref))
    if stored is None:
        peer = _at_peers(parts, ()).get(ref)
        if peer is None:
            raise _unknown(ref)
        return web.json_response(_peer_row(request, ref, peer))
    base = await parts.store.find(stored.adapter.base) if stored.adapter else None
    return web.json_response(_client_row(request, stored, base) | {"id": ref})


def _client_row(request: web.Request, stored: Stored, base: Stored | None) -> dict[str, Any]:
    """`base` of an adapter: what it was made from, and whose context it has."""
    row = _row(request, str(stored.ref), stored.created_at, "helios")
    if _anthropic(request):
        return row
    if base is not None:
        row["root"] = row["parent"] = str(base.ref)
    length = (base or stored).profile.max_model_len
    return row if length is None else row | {"max_model_len": length}


def _peer_row(request: web.Request, ref: str, peer: str) -> dict[str, Any]:
    return _row(request, ref, 0.0, peer)


def _row(request: web.Request, ref: str, created_at: float, owner: str) -> dict[str, Any]:
    if _anthropic(request):
        created = datetime.fromtimestamp(created_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return {"type": "model", "id": ref, "display_name": ref, "created_at": created}
    return {"id": ref, "object": "model", "created": int(created_at), "owned_by": owner, "root": ref, "parent": None}


def _anthropic(request: web.Request) -> bool:
    return "anthropic-version" in request.headers


def _at_peers(parts: Parts, stored: Iterable[Stored]) -> dict[str, str]:
    """What only living peers hold, and which of them."""
    here = {name for model in stored for name in (str(model.ref), *model.aliases)}
    return {
        ref: peer for peer, models in sorted(parts.peers.holds.items()) for ref in sorted(models) if ref not in here
    }


async def _find(parts: Parts, ref: ModelRef) -> Stored:
    stored = await parts.store.find(ref)
    if stored is None:
        raise _unknown(str(ref))
    return stored


def _unknown(ref: str) -> NotFound:
    return NotFound(
        f"cannot find the model {ref}: it is not in the store; `heliosctl ls` lists what is", code="model_not_found"
    )


_EVENTS = (("progress", ProgressView), ("done", ModelView), ("error", ErrorBody))

ROUTES = (
    Route(
        "GET",
        "/helios/v1/models",
        list_models,
        Scope.PEERS,
        "The models in the store, and those that only peers hold.",
        Answer("models", ModelList),
        parameters=(Parameter("local", "boolean", "only this node's own"),),
    ),
    Route(
        "POST",
        "/helios/v1/models",
        add_model,
        Scope.ADMIN,
        "Bring a model into the store, with its progress as events.",
        Answer("progress, then `done` or `error`", events=_EVENTS, media="text/event-stream"),
        body=AddModel,
        detail="Adding goes on while the answer is read. Close the connection to stop it; ask again to go on where "
        "it stopped. Who asks for what is being added already sees the same progress, and neither depends on the other "
        "staying. Of a hub's model the configuration and the headers come first: what no device here could ever hold "
        "is refused before the rest, unless `anyway` is set.",
        errors=(
            "model_cannot_fit",
            "disk_full",
            "source_failed",
            "corrupt_data",
            "not_allowed",
            "conflict",
            "base_not_found",
        ),
        preview=add_model_plan,
    ),
    Route(
        "GET",
        "/helios/v1/models/{ref:.+}",
        show_model,
        Scope.ADMIN,
        "All about one model.",
        Answer("the model", ModelDetail),
        errors=("model_not_found",),
    ),
    Route(
        "DELETE",
        "/helios/v1/models/{ref:.+}",
        remove_model,
        Scope.ADMIN,
        "Remove a model from the store.",
        Answer("what became free", Removed),
        errors=("model_not_found", "model_in_use", "model_has_adapters"),
        preview=remove_model_plan,
    ),
    Route(
        "GET",
        "/v1/models",
        list_for_clients,
        Scope.USE,
        "The models that can be asked for.",
        Answer("OpenAI's list; Anthropic's when the request has the header `anthropic-version`"),
        group="inference",
    ),
    Route(
        "GET",
        "/v1/models/{id:.+}",
        show_for_clients,
        Scope.USE,
        "One of them; aliases are found too.",
        Answer("OpenAI's or Anthropic's model object"),
        group="inference",
        errors=("model_not_found",),
    ),
)
