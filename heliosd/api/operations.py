"""/helios/v1/{wake,evict,move,limits,drain}: what an operator does with replicas and devices by hand."""

from aiohttp import web

from heliosd.api.asked import body_of, json_of, parse_body
from heliosd.api.now import replica_now
from heliosd.api.parts import Parts
from heliosd.api.plans import leave_step, plan_of, start_step, write_step
from heliosd.api.routes import Answer, Parameter, Route, Scope
from heliosd.core.costs import Cost
from heliosd.core.lifecycle import State
from heliosd.core.names import ReplicaId
from heliosd.core.units import format_bytes
from heliosd.errors import BadRequest, Conflict, Unavailable
from heliosd.node.operating import Limited, Start, Wish
from heliosd.wire import (
    ChangeLimits,
    ChangePlan,
    ChangeStep,
    DrainAsked,
    DrainView,
    EvictedReplicas,
    EvictReplicas,
    LimitChange,
    LimitsView,
    MovedReplicas,
    MoveReplicas,
    ReplicaList,
)


async def wake(request: web.Request, parts: Parts) -> web.StreamResponse:
    awake = await parts.node.operator.wake(request.match_info["subject"])
    views = [view for each in awake if (view := replica_now(parts, each)) is not None]
    return json_of(ReplicaList(replicas=views, queue=[]))


async def wake_plan(request: web.Request, parts: Parts) -> ChangePlan:
    subject = request.match_info["subject"]
    asleep = await parts.node.operator.sleepers(subject)
    steps = [
        ChangeStep(
            what="wake",
            subject=each.replica,
            devices=list(each.devices),
            takes_bytes=max(0, each.held_awake_bytes - each.held_bytes),
            seconds=each.wake_s,
            reason=f"{each.model} sleeps with {format_bytes(each.held_bytes)} on {', '.join(each.devices)}",
        )
        for each in parts.node.operator.costs_of(asleep)
    ]
    return plan_of(f"{len(steps)} would wake", steps)


async def evict(request: web.Request, parts: Parts) -> web.StreamResponse:
    plan, asked = await evict_plan(request, parts), await _eviction(request)
    evicted = await parts.node.operator.evict(request.match_info["subject"], asked.to)
    return json_of(EvictedReplicas(evicted=list(evicted), plan=plan.model_copy(update={"dry_run": False})))


async def evict_plan(request: web.Request, parts: Parts) -> ChangePlan:
    subject, asked = request.match_info["subject"], await _eviction(request)
    costs = await parts.node.operator.costs(subject, "evict")
    for each in costs:
        if asked.to == "sleep" and not each.sleeps and each.state is not State.ASLEEP:
            why = each.sleepless or f"it is {each.state}"
            raise Conflict(f"cannot put {each.replica} to sleep: {why}", code="cannot_sleep")
    steps = [_step_down(each, asked.to) for each in costs if asked.to != "sleep" or each.sleeps]
    return plan_of(f"{subject} would give its memory back", steps)


def _step_down(cost: Cost, to: str) -> ChangeStep:
    return leave_step(cost, sleep=to != "stop" and cost.sleeps)


async def _eviction(request: web.Request) -> EvictReplicas:
    return parse_body(await request.read() or b"{}", EvictReplicas)


async def move(request: web.Request, parts: Parts) -> web.StreamResponse:
    asked = await body_of(request, MoveReplicas)
    old, new = await parts.node.operator.move(request.match_info["subject"], tuple(asked.devices))
    view = replica_now(parts, new)
    if view is None:
        raise Unavailable(f"cannot show {new}: it became ready and was stopped again at once")
    return json_of(MovedReplicas(stopped=[old], replica=view))


async def move_plan(request: web.Request, parts: Parts) -> ChangePlan:
    asked = await body_of(request, MoveReplicas)
    cost, start = await parts.node.operator.plan_move(request.match_info["subject"], tuple(asked.devices))
    return plan_of(f"{cost.replica} would move to {', '.join(asked.devices)}", _instead(cost, start))


def _instead(cost: Cost, start: Start) -> list[ChangeStep]:
    """The new one first where there is room beside the old one, so that nobody waits."""
    steps = [start_step(start), leave_step(cost, sleep=False)]
    return steps if start.beside else [*reversed(steps)]


async def change_limits(request: web.Request, parts: Parts) -> web.StreamResponse:
    subject, wish = request.match_info["subject"], await _limits(request)
    changes, replaced = await parts.node.operator.limit(subject, wish)
    views = [_limit_view(each, replaced.get(each.replica)) for each in changes]
    for each in views:
        words = f"{each.limit} of {each.replica} is {each.after}, was {each.before}"
        words += f"; {each.replaced_by} runs instead" if each.replaced_by else ""
        parts.journal.note("limits", words, replica=each.replaced_by or each.replica)
    return json_of(LimitsView(model=subject, changes=views))


async def limits_plan(request: web.Request, parts: Parts) -> ChangePlan:
    changes, starts = await parts.node.operator.plan_limits(request.match_info["subject"], await _limits(request))
    restarted = tuple(dict.fromkeys(each.replica for each in changes if not each.now))
    steps = [_limit_step(each) for each in changes]
    for cost, start in zip(parts.node.operator.costs_of(restarted), starts, strict=True):
        steps += _instead(cost, start)
    how = f"{len(restarted)} start again for it" if restarted else "at once, without a restart" if changes else "as now"
    return plan_of(f"limits would be changed: {how}", steps)


def _limit_step(change: Limited) -> ChangeStep:
    how = "holds from its next request" if change.now else "an engine takes it only when it starts"
    reason = f"{change.limit}: {change.before} now, {change.after} then; {how}; helios.toml keeps it for later starts"
    return write_step(change.replica, reason, what="limit" if change.now else "restart")


def _limit_view(change: Limited, replaced_by: ReplicaId | None) -> LimitChange:
    return LimitChange(
        replica=change.replica,
        limit=change.limit,
        before=change.before,
        after=change.after,
        how="now" if change.now else "restart",
        replaced_by=replaced_by,
    )


async def _limits(request: web.Request) -> Wish:
    asked = await body_of(request, ChangeLimits)
    wish = Wish((), asked.max_model_len, asked.max_num_seqs, asked.kv_cache_bytes)
    if not wish.limits:
        raise BadRequest("cannot change limits: say which, `max_num_seqs`, `kv_cache_bytes` or `max_model_len`")
    return wish


async def show_drains(request: web.Request, parts: Parts) -> web.StreamResponse:
    return json_of(_drains(parts))


async def drain(request: web.Request, parts: Parts) -> web.StreamResponse:
    asked = await _drained(request)
    draining = parts.node.draining
    stopped: tuple[ReplicaId, ...]
    if asked.replica is not None:
        stopped = await parts.node.stop(asked.replica)
    elif asked.device is not None:
        stopped = await draining.drain_device(asked.device)
        parts.journal.note("drain", f"{asked.device} is drained: nothing is started there until that is ended")
    else:
        stopped = await draining.drain_node()
        parts.journal.note("drain", "the node is drained: it takes no requests until that is ended")
    return json_of(_drains(parts).model_copy(update={"stopped": list(stopped)}))


async def drain_plan(request: web.Request, parts: Parts) -> ChangePlan:
    asked = await _drained(request)
    operator, draining = parts.node.operator, parts.node.draining
    if asked.replica is not None:
        steps = [leave_step(each, sleep=False) for each in await operator.costs(asked.replica, "drain")]
        return plan_of(f"{asked.replica} would finish its requests and stop", steps)
    steps = [leave_step(each, sleep=False) for each in operator.costs_of(draining.on(asked.device))]
    if asked.device is not None:
        step = write_step(asked.device, "nothing is started there until the drain is ended, also after a restart")
        return plan_of(f"{asked.device} would be drained", [step, *steps])
    step = write_step("node", "requests are refused with 503 `draining` until the drain is ended, or heliosd restarts")
    return plan_of("the node would be drained", [step, *steps])


async def end_drain(request: web.Request, parts: Parts) -> web.StreamResponse:
    device = request.query.get("device")
    if device is not None:
        await parts.node.draining.end_device(device)
    else:
        await parts.node.draining.end_node()
    parts.journal.note("drain", f"{device or 'the node'} is in service again")
    return json_of(_drains(parts))


async def end_drain_plan(request: web.Request, parts: Parts) -> ChangePlan:
    device, draining = request.query.get("device"), parts.node.draining
    draining.check(device)
    what = "replicas may be started there again" if device else "requests are taken again, and pinned models start"
    return plan_of(f"{device or 'the node'} would be in service again", [write_step(device or "node", what)])


async def _drained(request: web.Request) -> DrainAsked:
    asked = parse_body(await request.read() or b"{}", DrainAsked)
    if asked.device is not None and asked.replica is not None:
        raise BadRequest("cannot drain: name a device or a replica, not both; neither means the node", param="device")
    return asked


def _drains(parts: Parts) -> DrainView:
    draining = parts.node.draining
    return DrainView(node=draining.node, devices=list(draining.devices))


_SUBJECT = "`subject` is a replica's id or a model's ref."

ROUTES = (
    Route(
        "POST",
        "/helios/v1/wake/{subject:.+}",
        wake,
        Scope.ADMIN,
        "Wake a replica, or all of a model that sleep; answered when they are ready.",
        Answer("what is awake", ReplicaList),
        detail=_SUBJECT,
        errors=("replica_not_found", "not_asleep", "engine_failed", "unavailable"),
        preview=wake_plan,
    ),
    Route(
        "POST",
        "/helios/v1/evict/{subject:.+}",
        evict,
        Scope.ADMIN,
        "Have a replica, or all of a model, give its memory back.",
        Answer("what was sent away, and what that freed and costs", EvictedReplicas),
        body=EvictReplicas,
        detail=f"{_SUBJECT} Requests being served are finished first. A dry run says what it frees and costs.",
        errors=("replica_not_found", "cannot_sleep"),
        preview=evict_plan,
    ),
    Route(
        "POST",
        "/helios/v1/move/{subject:.+}",
        move,
        Scope.ADMIN,
        "Have a replica run on other devices.",
        Answer("what was stopped, and what runs instead", MovedReplicas),
        body=MoveReplicas,
        detail=f"{_SUBJECT} Where there is room, the new one is ready before the old one drains: nobody waits.",
        errors=("replica_not_found", "bad_devices", "model_cannot_fit", "conflict", "engine_failed", "unavailable"),
        preview=move_plan,
    ),
    Route(
        "PATCH",
        "/helios/v1/limits/{subject:.+}",
        change_limits,
        Scope.ADMIN,
        "Change the KV cache, the longest request or the requests at once of what runs.",
        Answer("what changed, and how", LimitsView),
        body=ChangeLimits,
        detail=f"{_SUBJECT} Fewer requests at once than the engine was started for hold from the next request on. All "
        "else needs another engine: it is started beside the old one where there is room, else in its place. It holds "
        "for these replicas only; `helios.toml` is for later ones.",
        errors=("replica_not_found", "bad_limits", "model_cannot_fit", "conflict", "engine_failed", "unavailable"),
        preview=limits_plan,
    ),
    Route(
        "GET",
        "/helios/v1/drain",
        show_drains,
        Scope.ADMIN,
        "What is out of service.",
        Answer("whether the node is, and which devices", DrainView),
    ),
    Route(
        "POST",
        "/helios/v1/drain",
        drain,
        Scope.ADMIN,
        "Take a replica, a device or the whole node out of service; answered when its requests are done.",
        Answer("what is out, and what was stopped", DrainView),
        body=DrainAsked,
        detail="A replica is stopped. On a device nothing is started until the drain is ended, also after a restart. "
        "The node refuses requests until the drain is ended, or heliosd starts again.",
        errors=("device_not_found", "replica_not_found"),
        preview=drain_plan,
    ),
    Route(
        "DELETE",
        "/helios/v1/drain",
        end_drain,
        Scope.ADMIN,
        "Take the node, or with `device` a device, into service again.",
        Answer("what is still out", DrainView),
        parameters=(Parameter("device", "string", "which device; default: the node"),),
        errors=("device_not_found", "not_drained"),
        preview=end_drain_plan,
    ),
)
