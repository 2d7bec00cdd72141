"""Who waits for a start is told what is left of it, phase by phase."""

from heliosd.core.codec import Codec
from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import (
    Demand,
    DevicesFound,
    Event,
    Footprint,
    Hold,
    Limits,
    ReplicaBecameReady,
    ReplicaExited,
    ReplicaProgressed,
    RequestArrived,
    RequestReleased,
    StopAsked,
    UsageSeeded,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.start_forecast import SeenStart
from heliosd.core.units import GiB

LLAMA = Demand("llama", "rev", Footprint(50 * GiB, 0, 0))
PHASES = (("fork", 0.2), ("weights", 10.0), ("warm_up", 4.0))
R1, R2 = ReplicaId("r1"), ReplicaId("r2")


def node(*events: Event) -> Scheduler:
    scheduler = Scheduler(Limits(safety_ratio=0.0))
    card = Device(DeviceId("g0"), DeviceKind.SIMULATED, "card", 100 * GiB)
    for event in (DevicesFound(0.0, (card,)), *events):
        scheduler.handle(event)
    return scheduler


def once_started() -> Scheduler:
    """It took 20 s from the decision to ready, of which the phases tell 14.2: the rest was waiting."""
    return node(
        RequestArrived(0.0, Ticket("t1"), "llama", LLAMA),
        ReplicaBecameReady(20.0, R1, LLAMA.per_device, phases=PHASES),
        RequestReleased(21.0, Ticket("t1")),
        StopAsked(21.0, R1),
        ReplicaExited(22.0, R1, None),
    )


def eta_s(scheduler: Scheduler, at: float) -> float | None:
    return scheduler.snapshot(at).waiting[0].eta_s


def test_the_eta_is_what_remains_after_the_phases_that_are_done() -> None:
    scheduler = once_started()
    scheduler.handle(RequestArrived(100.0, Ticket("t2"), "llama", LLAMA))
    assert round(eta_s(scheduler, 100.0) or 0, 3) == 14.2
    (begins,) = scheduler.handle(ReplicaProgressed(103.0, R2, "fork"))
    assert isinstance(begins, Hold)
    assert begins.reason == "r2 is starting: weights begins, 14 of 14 s left"
    assert begins.eta_s == 14.0, "though it took 3 s to come so far"
    scheduler.handle(ReplicaProgressed(130.0, R2, "weights"))
    assert eta_s(scheduler, 130.0) == 4.0, "reading took twice as long, and what comes behind it does not"


def test_a_phase_too_short_to_read_is_not_told_and_neither_is_one_that_nobody_knows() -> None:
    scheduler = once_started()
    scheduler.handle(RequestArrived(100.0, Ticket("t2"), "llama", LLAMA))
    assert scheduler.handle(ReplicaProgressed(100.1, R2, "dispatch")) == []
    unknown = node(RequestArrived(0.0, Ticket("t1"), "new", LLAMA))
    assert unknown.handle(ReplicaProgressed(1.0, R1, "weights")) == []


def test_news_of_a_replica_that_is_ready_or_gone_changes_nothing() -> None:
    scheduler = once_started()
    assert scheduler.handle(ReplicaProgressed(23.0, R1, "settle")) == []
    scheduler.handle(RequestArrived(100.0, Ticket("t2"), "llama", LLAMA))
    scheduler.handle(ReplicaBecameReady(110.0, R2, LLAMA.per_device, phases=PHASES))
    assert scheduler.handle(ReplicaProgressed(110.0, R2, "settle")) == []


def test_what_another_life_saw_is_known_in_this_one() -> None:
    earlier = (("llama", SeenStart(PHASES, 50 * GiB, "simulated")),)
    scheduler = node(UsageSeeded(0.0, 1e9, (), earlier), RequestArrived(1.0, Ticket("t1"), "llama", LLAMA))
    assert round(eta_s(scheduler, 1.0) or 0, 3) == 14.2


def test_the_scheduler_with_its_starts_is_told_as_plain_data_and_back() -> None:
    scheduler = once_started()
    scheduler.handle(RequestArrived(100.0, Ticket("t2"), "llama", LLAMA))
    scheduler.handle(ReplicaProgressed(103.0, R2, "fork"))
    codec = Codec()
    again = codec.decode(Scheduler, codec.encode(Scheduler, scheduler))
    assert again.usage.starts.starts == scheduler.usage.starts.starts
    assert again.replicas[R2].phases_done == ("fork",)
