"""/helios/v1/replicas: what runs, start it, stop it."""

from aiohttp import web

from heliosd.api.asked import body_of, json_of, ref_of
from heliosd.api.now import queue_of, replica_now, replicas_of
from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Route, Scope
from heliosd.errors import Unavailable
from heliosd.wire import LoadModel, QueueList, ReplicaList, ReplicaView, SleepingReplicas, StoppedReplicas


async def list_replicas(request: web.Request, parts: Parts) -> web.StreamResponse:
    snapshot = parts.node.snapshot()
    return json_of(
        ReplicaList(replicas=replicas_of(parts, snapshot, snapshot.replicas), queue=queue_of(parts, snapshot))
    )


async def queue(request: web.Request, parts: Parts) -> web.StreamResponse:
    return json_of(QueueList(queue=queue_of(parts, parts.node.snapshot())))


async def load(request: web.Request, parts: Parts) -> web.StreamResponse:
    ref = ref_of((await body_of(request, LoadModel)).model)
    replica = await parts.node.load(ref)
    view = replica_now(parts, replica)
    if view is None:
        raise Unavailable(f"cannot show the replica of {ref}: it became ready and was stopped again at once")
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
        "Start a model; answered when it is ready.",
        Answer("the replica", ReplicaView),
        body=LoadModel,
        errors=("model_not_found", "model_cannot_fit", "engine_failed", "draining", "queue_full", "queue_timeout"),
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
    ),
)
