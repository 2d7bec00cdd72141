"""Follows the memory of each replica and of the daemon itself, and says which of them leaks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from heliosd.core.hardware import DeviceKind, ProcessMemory
from heliosd.core.leaks import LeakPolicy, Series, Verdict
from heliosd.core.lifecycle import State
from heliosd.core.messages import DevicesRead
from heliosd.core.names import ReplicaId
from heliosd.core.replicas import Replica
from heliosd.core.snapshot import MemoryStatus
from heliosd.core.warm_pool import WarmPool

DAEMON = "daemon"
"""Stands for the daemon where a replica is named."""
_SERVING = frozenset({State.READY, State.DRAINING})


@dataclass
class Followed:
    """One life of one replica, from ready to asleep or gone, or the daemon."""

    since: float
    """When it became ready."""
    host: Series
    """What its processes hold alone of the machine's RAM."""
    device: Series
    """What the driver says that it holds of its devices."""
    pss_bytes: int | None = None
    device_bytes: int | None = None

    def leaking(self) -> tuple[str, Verdict] | None:
        """`host` or `device`, and why; None: it does not leak."""
        for where, series in (("device", self.device), ("host", self.host)):
            if series.verdict.leak:
                return where, series.verdict
        return None

    def status(self) -> MemoryStatus:
        worst = max((self.device.verdict, self.host.verdict), key=lambda each: (each.leak, each.slope))
        return MemoryStatus(
            pss_bytes=self.pss_bytes,
            device_bytes=self.device_bytes,
            host_floor_bytes=self.host.verdict.floor_bytes,
            device_floor_bytes=self.device.verdict.floor_bytes,
            slope_bytes_per_s=worst.slope,
            suspected=worst.leak,
            why=worst.why,
        )


@dataclass
class LeakWatch:
    """Owned by the scheduler."""

    followed: dict[str, Followed] = field(default_factory=dict)
    suspects: bool = False
    """Somebody leaks."""

    def look(self, event: DevicesRead, pool: WarmPool, policy: LeakPolicy) -> None:
        """Take in one reading of all."""
        processes = dict(event.memory)
        used = _device_bytes(event, pool)
        serving = {each.id: each for each in pool.replicas.values() if each.state in _SERVING}
        for gone in [name for name in self.followed if name != DAEMON and ReplicaId(name) not in serving]:
            del self.followed[gone]
        for replica in serving.values():
            ready_at = replica.ready_at if replica.ready_at is not None else event.at
            followed = self.followed.get(replica.id)
            if followed is None or followed.since != ready_at:
                followed = self.followed[replica.id] = _begin(ready_at, policy)
            _read(followed, event.at, replica, pool, processes.get(replica.id), used.get(replica.id), policy)
        if event.daemon is not None:
            own = self.followed.setdefault(DAEMON, _begin(event.at, policy))
            own.pss_bytes = event.daemon.pss_bytes
            own.host.read(event.at, event.daemon.own_bytes, 0, policy)
        self.suspects = any(each.leaking() for each in self.followed.values())

    def leaking(self) -> Iterable[tuple[str, str, Verdict]]:
        """Who leaks: the replica or `DAEMON`, where, and why."""
        for name, followed in self.followed.items():
            if (found := followed.leaking()) is not None:
                yield (name, *found)


def _begin(ready_at: float, policy: LeakPolicy) -> Followed:
    since = ready_at + policy.warm_up_s
    return Followed(ready_at, Series(since), Series(since))


def _read(
    followed: Followed,
    at: float,
    replica: Replica,
    pool: WarmPool,
    process: ProcessMemory | None,
    device_bytes: int | None,
    policy: LeakPolicy,
) -> None:
    use = 0 if not replica.leases else 1 + int(replica.pressure.used_ratio * 10)
    on_host = all(pool.ledger.devices[each].kind is DeviceKind.HOST for each in replica.devices)
    said = replica.measured or replica.demand.per_device
    whole, cache = said.total_bytes * len(replica.devices), said.kv_cache_bytes * len(replica.devices)
    if process is not None:
        followed.pss_bytes = process.pss_bytes
        shared_bytes = process.pss_bytes - process.own_bytes
        allowance = _unfilled(followed.host, whole - shared_bytes, cache, process.own_bytes) if on_host else 0
        followed.host.read(at, process.own_bytes, use, policy, allowance)
    if device_bytes is not None:
        followed.device_bytes = device_bytes
        if not on_host:
            allowance = _unfilled(followed.device, whole, cache, device_bytes)
            followed.device.read(at, device_bytes, use, policy, allowance)


def _unfilled(series: Series, whole_bytes: int, cache_bytes: int, now_bytes: int) -> int:
    """What its engine counted when it became ready and did not hold yet at the beginning of the window, at most the KV
    cache: that fills as it is used."""
    first = series.floors[0].n_bytes if series.floors else now_bytes
    return max(0, min(cache_bytes, whole_bytes - first))


def _device_bytes(event: DevicesRead, pool: WarmPool) -> Mapping[ReplicaId, int]:
    """Of each replica whose processes the driver tells of, on all its devices together."""
    of_pid = {pid: replica for replica, pids in event.ours for pid in pids}
    used: dict[ReplicaId, int] = {}
    for reading in event.readings:
        for each in reading.processes:
            replica = of_pid.get(each.pid)
            if replica in pool.replicas and each.used_bytes is not None and reading.fault is None:
                used[replica] = used.get(replica, 0) + each.used_bytes
    return used
