"""The node as it is at this moment, as it crosses the wire."""

import os
import time
from collections.abc import Iterable

from heliosd.api.parts import Parts
from heliosd.api.views import device_view, engine_kind_view, node_view, queue_view, replica_view
from heliosd.core.lifecycle import State
from heliosd.core.names import ReplicaId
from heliosd.core.snapshot import ReplicaStatus
from heliosd.core.snapshot import Snapshot as CoreSnapshot
from heliosd.wire import DeviceView, NodeView, QueueView, ReplicaView, Snapshot


def snapshot_now(parts: Parts) -> Snapshot:
    snapshot = parts.node.snapshot()
    return Snapshot(
        node=node_now(parts, snapshot),
        devices=devices_of(snapshot),
        replicas=replicas_of(parts, snapshot, snapshot.replicas),
        queue=queue_of(parts, snapshot),
    )


def node_now(parts: Parts, snapshot: CoreSnapshot) -> NodeView:
    shells = parts.shells()
    return node_view(
        parts.identity,
        snapshot,
        accepting=parts.node.accepting,
        engines=[engine_kind_view(name, kind, shells.get(name)) for name, kind in parts.engine_kinds().items()],
        warnings=parts.warnings(),
        pid=os.getpid(),
        now=time.time(),
    )


def devices_of(snapshot: CoreSnapshot) -> list[DeviceView]:
    return [device_view(account) for account in snapshot.devices]


def queue_of(parts: Parts, snapshot: CoreSnapshot) -> list[QueueView]:
    """Who waits, in the order in which they are served."""
    names, now = {key.id: key.name for key in parts.keys.all()}, time.time()
    waiting = sorted(snapshot.waiting, key=lambda each: each.position)
    return [queue_view(each, names, at=snapshot.at, now=now) for each in waiting]


def replicas_of(parts: Parts, snapshot: CoreSnapshot, replicas: Iterable[ReplicaStatus]) -> list[ReplicaView]:
    node, now = parts.node, time.time()
    views = []
    for replica in replicas:
        view = replica_view(replica, node.engine(replica.id), node.log_file(replica.id), at=snapshot.at, now=now)
        so_far = node.start_so_far(replica.id) if replica.state is State.STARTING else None
        if so_far is not None:
            view = view.model_copy(update={"phases": so_far.timeline.seconds(), "left_s": so_far.left_s})
        views.append(view)
    return views


def replica_now(parts: Parts, replica: ReplicaId) -> ReplicaView | None:
    """One replica; None when it is already gone again."""
    snapshot = parts.node.snapshot()
    return next(iter(replicas_of(parts, snapshot, [r for r in snapshot.replicas if r.id == replica])), None)
