"""What the scheduler does about a leak: drain, stop, start again; once in a window; never under the only one's work."""

from dataclasses import replace

from heliosd.core.hardware import Device, DeviceKind, DeviceReading, ProcessMemory, ProcessUse
from heliosd.core.leaks import LeakPolicy
from heliosd.core.lifecycle import State
from heliosd.core.messages import (
    Command,
    Demand,
    DevicesFound,
    DevicesRead,
    DrainReplica,
    Footprint,
    Limits,
    Note,
    ReplicaBecameReady,
    ReplicaExited,
    RequestArrived,
    RequestReleased,
    StartReplica,
    StopReplica,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB, MiB

G0, R1, R2, T1, T2 = DeviceId("g0"), ReplicaId("r1"), ReplicaId("r2"), Ticket("t1"), Ticket("t2")
HOUR = 3600
M = Demand("m", "rev", Footprint(10 * GiB, 5 * GiB, GiB), keep_alive_s=float("inf"))


class Node:
    """A scheduler with a card, read twice a minute."""

    def __init__(self, kind: DeviceKind = DeviceKind.SIMULATED, **policy: object) -> None:
        limits = Limits(safety_ratio=0.0, leaks=replace(LeakPolicy(), **policy))  # type: ignore[arg-type]
        self.scheduler, self.at, self.said = Scheduler(limits), 0.0, list[Command]()
        self.tell(DevicesFound(0.0, (Device(G0, kind, "card", 80 * GiB),)))
        self.held: dict[ReplicaId, float] = {}
        self.grows: dict[ReplicaId, float] = {}
        self.daemon, self.daemon_grows = float(GiB), 0.0

    def tell(self, event: object) -> None:
        self.said += self.scheduler.handle(event)  # type: ignore[arg-type]

    def serve(self, ticket: Ticket = T1, replica: ReplicaId = R1, held: float = 16 * GiB) -> None:
        self.tell(RequestArrived(self.at, ticket, "m", M))
        if replica not in self.held:
            self.tell(ReplicaBecameReady(self.at + 5, replica, M.per_device))
            self.held[replica] = held

    def release(self, ticket: Ticket = T1) -> None:
        self.tell(RequestReleased(self.at, ticket))

    def go(self, seconds: float, *, on_host: bool = False) -> None:
        end = self.at + seconds
        while self.at < end:
            self.at += 30
            for replica in list(self.held):
                self.held[replica] += self.grows.get(replica, 0.0) * 30
            self.daemon += self.daemon_grows * 30
            uses = tuple(ProcessUse(int(each[1:]), int(held)) for each, held in self.held.items())
            reading = DeviceReading(G0, sum(use.used_bytes or 0 for use in uses), 0, () if on_host else uses)
            memory = tuple((each, ProcessMemory(int(held), int(held))) for each, held in self.held.items())
            self.tell(
                DevicesRead(
                    self.at,
                    (reading,),
                    tuple((each, (int(each[1:]),)) for each in self.held),
                    memory=memory if on_host else (),
                    daemon=ProcessMemory(int(self.daemon), int(self.daemon)),
                )
            )

    def of(self, kind: type[Command]) -> list[Command]:
        return [each for each in self.said if isinstance(each, kind)]

    @property
    def leaks(self) -> list[Note]:
        return [each for each in self.said if isinstance(each, Note) and each.kind == "leak"]


def leaking(**policy: object) -> Node:
    node = Node(**policy)
    node.serve()
    node.release()
    node.grows[R1] = 2 * GiB / HOUR
    return node


def test_what_leaks_is_drained_stopped_and_started_again_with_the_arithmetic() -> None:
    node = leaking(most_bytes_per_hour=64 * MiB)
    node.scheduler.pool.adjusted(M)
    node.held[R1] = 16 * GiB
    node.go(3 * HOUR)
    (note,) = node.leaks
    assert note.warning
    assert note.replica == R1
    assert "r1 of m leaks device memory: grows by 2.0 GiB an hour" in note.reason
    assert note.reason.endswith("; it is recycled")
    assert dict(note.detail)["slope_bytes_per_s"] > 0
    (drain,) = node.of(DrainReplica)
    assert drain.reason.startswith("recycled: it leaks device memory")  # type: ignore[union-attr]
    assert node.of(StopReplica)
    status = node.scheduler.snapshot(node.at)
    assert status.recycles == (("m", "device", 1),)
    del node.held[R1]
    node.tell(ReplicaExited(node.at, R1, None))
    start = node.of(StartReplica)[-1]
    assert isinstance(start, StartReplica)
    assert start.reason.startswith("in place of r1, which leaked")


def test_memory_of_the_machine_counts_too() -> None:
    node = leaking()
    node.go(3 * HOUR, on_host=True)
    assert "leaks host memory" in node.leaks[0].reason
    assert node.of(DrainReplica)


def test_the_only_one_at_work_is_left_until_it_is_idle() -> None:
    node = Node()
    node.serve()
    node.grows[R1] = 2 * GiB / HOUR
    node.go(3 * HOUR)
    assert not node.of(DrainReplica)
    assert node.leaks[-1].reason.endswith(
        "it is recycled when it is idle: no other replica could take what it works on"
    )
    assert len(node.leaks) == 1
    node.release()
    assert node.of(DrainReplica)
    assert node.of(StopReplica)


def test_at_most_one_of_a_model_in_a_window() -> None:
    node = leaking()
    node.go(2 * HOUR)
    assert len(node.of(DrainReplica)) == 1
    del node.held[R1]
    node.tell(ReplicaExited(node.at, R1, None))
    node.tell(ReplicaBecameReady(node.at + 5, R2, M.per_device))
    node.scheduler.recycling.recycled_at["m"] = node.at + 100 * HOUR  # as if one of its fellows had just been
    node.held[R2], node.grows[R2] = 16 * GiB, 2 * GiB / HOUR
    node.go(3 * HOUR)
    assert len(node.of(DrainReplica)) == 1
    assert "one was recycled less than 3600 s ago" in node.leaks[-1].reason


def test_the_operator_may_forbid_it() -> None:
    node = leaking(recycle=False)
    node.go(3 * HOUR)
    assert not node.of(DrainReplica)
    assert node.leaks[-1].reason.endswith("it stays, as leaks.recycle = false says")
    memory = node.scheduler.snapshot(node.at).replicas[0].memory
    assert memory is not None
    assert memory.suspected


def test_the_leak_of_one_that_is_gone_is_not_said_to_be_the_daemons() -> None:
    node = leaking(recycle=False)
    node.go(3 * HOUR)
    before = list(node.leaks)
    node.tell(ReplicaExited(node.at, R1, "killed by SIGKILL"))  # and nothing has been read since
    node.tell(RequestArrived(node.at, T2, "m", M))
    assert node.leaks == before


def test_a_kv_cache_that_fills_and_an_engine_that_warms_up_are_not_recycled() -> None:
    node = Node(DeviceKind.HOST)
    node.serve(held=11 * GiB)
    node.release()
    node.grows[R1] = 2 * GiB / HOUR  # for two and a half hours, until the cache of 5 GiB is full
    node.go(2.5 * HOUR, on_host=True)
    node.grows[R1] = 0.0
    node.go(3 * HOUR, on_host=True)
    warming = Node()
    warming.serve()
    warming.release()
    warming.grows[R1] = 50 * MiB
    warming.go(270)
    warming.grows[R1] = 0.0
    warming.go(3 * HOUR)
    for each in (node, warming):
        assert not each.leaks
        assert not each.of(DrainReplica)
        assert each.scheduler.replicas[R1].state is State.READY


def test_the_daemons_own_leak_is_only_told() -> None:
    node = Node()
    node.daemon_grows = GiB / HOUR
    node.go(3 * HOUR)
    assert node.leaks[-1].reason.startswith("the daemon leaks host memory")
    assert "restart heliosd" in node.leaks[-1].reason
    assert node.scheduler.snapshot(node.at).daemon is not None
    assert not node.of(StopReplica)


def test_what_sleeps_or_woke_is_followed_anew() -> None:
    node = leaking()
    node.go(0.7 * HOUR)
    node.scheduler.replicas[R1].ready_at = node.at
    node.go(0.6 * HOUR)
    assert not node.leaks
