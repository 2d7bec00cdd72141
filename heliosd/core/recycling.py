"""What is done about a leak: the replica drains and another starts in its place; at most once per window and model.

A replica that works and is the only one of its model is left until it is idle: what it works on cannot be moved. The
daemon's own leak is only told.
"""

from dataclasses import dataclass, field

from heliosd.core.leak_watch import DAEMON, LeakWatch
from heliosd.core.leaks import Verdict
from heliosd.core.lifecycle import COMING, State
from heliosd.core.messages import Command, Demand, Note
from heliosd.core.names import ReplicaId
from heliosd.core.placement import Fits
from heliosd.core.queue import Queue
from heliosd.core.replicas import Replica
from heliosd.core.room_making import RoomMaking
from heliosd.core.units import format_bytes
from heliosd.core.warm_pool import WarmPool

_RECYCLED = "it is recycled"


@dataclass
class Recycling:
    """Owned by the scheduler."""

    watch: LeakWatch = field(default_factory=LeakWatch)
    recycled_at: dict[str, float] = field(default_factory=dict)
    """When a replica of a model was last recycled."""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """How many were, by model and by where they leaked."""
    told: dict[str, str] = field(default_factory=dict)
    """What was last said to be done about each that leaks."""
    successors: dict[ReplicaId, Demand] = field(default_factory=dict)
    """What starts when these have gone."""

    def recycle(self, pool: WarmPool, at: float, *, draining: bool) -> list[Command]:
        """Tell of what leaks, and send away what may go."""
        commands: list[Command] = []
        leaking = list(self.watch.leaking()) if self.watch.suspects else []
        names = {name for name, _, _ in leaking}
        self.told = {name: what for name, what in self.told.items() if name in names}
        for name, where, verdict in leaking:
            replica = pool.replicas.get(ReplicaId(name))
            if (replica is None or replica.state is not State.READY) and name != DAEMON:
                continue  # it is going, or gone since the last reading
            what = self._what(replica, pool, at) if not draining else "the node drains"
            if self.told.get(name) != what:
                self.told[name] = what
                commands.append(_note(name, replica, where, verdict, what))
            if replica is not None and what == _RECYCLED:
                model = replica.demand.model
                self.recycled_at[model] = at
                by_place = self.counts.setdefault(model, {})
                by_place[where] = by_place.get(where, 0) + 1
                self.successors[replica.id] = replica.demand
                floor = format_bytes(verdict.floor_bytes)
                why = f"recycled: it leaks {where} memory, {floor} held while idle, and {verdict.why}"
                commands += pool.step_down(replica.id, at, why)
        return commands

    def _what(self, replica: Replica | None, pool: WarmPool, at: float) -> str:
        """What is done about it now."""
        if replica is None:
            return "restart heliosd when it suits; it is not done by itself"
        policy = pool.limits.leaks
        if not policy.recycle:
            return "it stays, as leaks.recycle = false says"
        last = self.recycled_at.get(replica.demand.model)
        if last is not None and at - last < policy.window_s:
            return f"it stays for now: one was recycled less than {policy.window_s:.0f} s ago (leaks.window_s)"
        others = [each for each in pool.of(replica.demand) if each.id != replica.id and each.open]
        if replica.leases and not others:
            return "it is recycled when it is idle: no other replica could take what it works on"
        return _RECYCLED

    def succeed(self, pool: WarmPool, queue: Queue, rooms: RoomMaking, at: float) -> list[Command]:
        """Start what takes the place of those that have gone, where there is room and no request waits for any."""
        commands: list[Command] = []
        for gone in [each for each in self.successors if each not in pool.replicas]:
            demand = self.successors.pop(gone)
            there = any(each.state in COMING or each.state is State.READY for each in pool.of(demand))
            if there or queue.waiting or pool.breakers.open_for(demand.model, at):
                continue
            room = rooms.find(pool.adjusted(demand), None, frozenset(), at)
            if isinstance(room.at, Fits) and not room.at.victims:
                why = f"in place of {gone}, which leaked; {room.at.reason}"
                commands += rooms.bring(room, pool.adjusted(demand), room.at.devices, None, at, why)[1]
        return commands


def _note(name: str, replica: Replica | None, where: str, verdict: Verdict, what: str) -> Note:
    model = replica.demand.model if replica is not None else DAEMON
    of = f"{name} of {model}" if replica is not None else "the daemon"
    detail = (
        ("slope_bytes_per_s", verdict.slope),
        ("grown_bytes", float(verdict.grown_bytes)),
        ("floor_bytes", float(verdict.floor_bytes)),
        ("readings", float(verdict.readings)),
        ("span_s", verdict.span_s),
    )
    text = f"{of} leaks {where} memory: {verdict.why}; {what}"
    return Note(model, text, warning=True, kind="leak", replica=ReplicaId(name) if replica else None, detail=detail)
