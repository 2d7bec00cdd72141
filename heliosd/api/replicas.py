"""/helios/v1/replicas: what runs, start it, stop it."""

import asyncio

from aiohttp import web

from heliosd.api.asked import body_of, json_of, ref_of
from heliosd.api.errors import error_body
from heliosd.api.now import queue_of, replica_now, replicas_of
from heliosd.api.parts import Parts
from heliosd.api.plans import leave_step, plan_of, start_step
from heliosd.api.routes import Answer, Route, Scope
from heliosd.api.sse import EventStream, event_stream, frame
from heliosd.api.timeline import last_start, starting_now
from heliosd.core.names import ModelRef
from heliosd.errors import BadRequest, Conflict, HeliosError, NotFound, Unavailable
from heliosd.node.operating import Wish
from heliosd.wire import (
    ChangePlan,
    ErrorBody,
    LoadModel,
    QueueList,
    ReplicaList,
    ReplicaView,
    ScaledView,
    SleepingReplicas,
    StoppedReplicas,
    TimelineView,
)


async def list_replicas(request: web.Request, parts: Parts) -> web.StreamResponse:
    snapshot = parts.node.snapshot()
    return json_of(
        ReplicaList(replicas=replicas_of(parts, snapshot, snapshot.replicas), queue=queue_of(parts, snapshot))
    )


async def queue(request: web.Request, parts: Parts) -> web.StreamResponse:
    return json_of(QueueList(queue=queue_of(parts, parts.node.snapshot())))


async def load(request: web.Request, parts: Parts) -> web.StreamResponse:
    asked = await body_of(request, LoadModel)
    ref, wish = ref_of(asked.model), _wish(asked)
    if asked.count is not None:
        return await _scaled(parts, ref, asked.count, wish)
    if not asked.stream:
        return json_of(await _loaded(parts, ref))
    async with event_stream(request) as (stream, response):
        async with asyncio.TaskGroup() as tasks:
            telling = [tasks.create_task(_tell_start(parts, ref, stream)), tasks.create_task(stream.keep_alive())]
            try:
                last = frame("done", await _loaded(parts, ref))
            except HeliosError as error:
                last = frame("error", error_body(error))
            for task in telling:
                task.cancel()
        if (timeline := await last_start(parts, str(ref))) is not None:
            await stream.send(frame("timeline", timeline))
        await stream.send(last)
    return response


def _wish(asked: LoadModel) -> Wish:
    """How replicas are to be. Raises BadRequest for wishes without a count, which would go unheard where one runs."""
    wish = Wish(tuple(asked.devices), asked.max_model_len, asked.max_num_seqs, asked.kv_cache_bytes)
    if asked.count is None and wish != Wish():
        raise BadRequest("cannot heed devices or limits without `count`: say how many there are to be", param="count")
    if asked.count is not None and asked.stream:
        raise BadRequest("cannot stream the starts of several: leave out `stream` or `count`", param="stream")
    return wish


async def _scaled(parts: Parts, ref: ModelRef, count: int, wish: Wish) -> web.StreamResponse:
    started, stopped = await parts.node.operator.scale(ref, count, wish)
    stored = await parts.store.find(ref)
    model, snapshot = str(stored.ref if stored else ref), parts.node.snapshot()
    own = replicas_of(parts, snapshot, [each for each in snapshot.replicas if each.model == model])
    return json_of(ScaledView(model=model, replicas=own, started=list(started), stopped=list(stopped)))


async def load_plan(request: web.Request, parts: Parts) -> ChangePlan:
    asked = await body_of(request, LoadModel)
    ref, wish = ref_of(asked.model), _wish(asked)
    if asked.count is not None:
        scaled = await parts.node.operator.plan_scale(ref, asked.count, wish)
        steps = [*map(start_step, scaled.starts), *(leave_step(each, sleep=False) for each in scaled.stops)]
        return plan_of(f"{scaled.model} would have {asked.count} replicas, it has {len(scaled.there)}", steps)
    scaled = await parts.node.operator.plan_scale(ref, 1, wish)
    why = f"{', '.join(scaled.there)} would answer" if scaled.there else "it would be started"
    return plan_of(f"{scaled.model}: {why}", map(start_step, scaled.starts))


async def stop_plan(request: web.Request, parts: Parts) -> ChangePlan:
    costs = await parts.node.operator.costs(request.match_info["subject"], "stop")
    return plan_of(f"{len(costs)} would stop", (leave_step(each, sleep=False) for each in costs))


async def sleep_plan(request: web.Request, parts: Parts) -> ChangePlan:
    costs = await parts.node.operator.costs(request.match_info["subject"], "put to sleep")
    for each in costs:
        if each.sleepless is not None:
            raise Conflict(f"cannot put {each.replica} to sleep: {each.sleepless}", code="cannot_sleep")
    return plan_of(f"{len(costs)} would sleep", (leave_step(each, sleep=True) for each in costs if each.sleeps))


async def _loaded(parts: Parts, ref: ModelRef) -> ReplicaView:
    view = replica_now(parts, await parts.node.load(ref))
    if view is None:
        raise Unavailable(f"cannot show the replica of {ref}: it became ready and was stopped again at once")
    return view


async def _tell_start(parts: Parts, ref: ModelRef, stream: EventStream) -> None:
    """Send the timeline of the replica that starts whenever a phase of it has ended, for ever."""
    version, told = -1, (-1, "")
    while True:
        version = await parts.node.changed(version)
        view = await starting_now(parts, str(ref))
        if view is not None and told != (now := (len(view.spans), view.replica)):
            told = now
            await stream.send(frame("timeline", view))


async def timeline(request: web.Request, parts: Parts) -> web.StreamResponse:
    subject = request.match_info["subject"]
    view = await last_start(parts, subject)
    if view is None:
        raise NotFound(
            f"cannot show the start of {subject}: no replica of that name or model runs, and the journal tells of none",
            code="replica_not_found",
        )
    return json_of(view)


async def stop(request: web.Request, parts: Parts) -> web.StreamResponse:
    stopped = await parts.node.stop(request.match_info["subject"])
    return json_of(StoppedReplicas(stopped=list(stopped)))


async def sleep(request: web.Request, parts: Parts) -> web.StreamResponse:
    asleep = await parts.node.sleep(request.match_info["subject"])
    return json_of(SleepingReplicas(asleep=list(asleep)))


ROUTES = (
    Route(
        "GET",
        "/helios/v1/replicas",
        list_replicas,
        Scope.ADMIN,
        "The replicas of this node and the requests that wait for one.",
        Answer("replicas and queue", ReplicaList),
    ),
    Route(
        "GET",
        "/helios/v1/queue",
        queue,
        Scope.ADMIN,
        "The requests that wait for a model.",
        Answer("who waits, for what, how long probably and why", QueueList),
    ),
    Route(
        "POST",
        "/helios/v1/replicas",
        load,
        Scope.ADMIN,
        "Start a model, or with `count` have so many replicas of it; answered when they are ready.",
        Answer(
            "the replica; with `stream` events; with `count` a [ScaledView](#scaledview)",
            ReplicaView,
            events=(("timeline", TimelineView), ("done", ReplicaView), ("error", ErrorBody)),
            other=ScaledView,
        ),
        body=LoadModel,
        errors=("model_not_found", "model_cannot_fit", "engine_failed", "draining", "queue_full", "queue_timeout"),
        preview=load_plan,
    ),
    Route(
        "GET",
        "/helios/v1/replicas/{subject:.+}/timeline",
        timeline,
        Scope.ADMIN,
        "The start of a replica, or the last start of a model, phase by phase.",
        Answer("its phases, with what is expected while it starts", TimelineView),
        detail="`subject` is a replica's id or a model's ref. Of replicas that have ended the journal tells.",
        errors=("replica_not_found",),
    ),
    Route(
        "DELETE",
        "/helios/v1/replicas/{subject:.+}",
        stop,
        Scope.ADMIN,
        "Stop a replica, or all of a model; answered when stopped.",
        Answer("what was stopped", StoppedReplicas),
        detail="`subject` is a replica's id or a model's ref. Requests being served are finished first.",
        errors=("replica_not_found",),
        preview=stop_plan,
    ),
    Route(
        "POST",
        "/helios/v1/sleep/{subject:.+}",
        sleep,
        Scope.ADMIN,
        "Put a replica, or all of a model, to sleep; answered when it sleeps.",
        Answer("what sleeps", SleepingReplicas),
        detail="`subject` is a replica's id or a model's ref. Requests being served are finished first. The next "
        "request wakes it, as does `POST /helios/v1/replicas`.",
        errors=("replica_not_found", "cannot_sleep"),
        preview=sleep_plan,
    ),
)
