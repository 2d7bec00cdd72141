"""The scheduler starts models before anyone asks, and only then."""

import json
from dataclasses import replace

import pytest

from heliosd.core.codec import Codec
from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import (
    DemandsKnown,
    DevicesFound,
    Footprint,
    Limits,
    ModelsChanged,
    ReplicaBecameReady,
    ReplicaExited,
    ReplicaSlept,
    RequestArrived,
    RequestReleased,
    SleepReplica,
    StartReplica,
    StopAsked,
    StopReplica,
    Tick,
    UsageSeeded,
    WakeReplica,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB
from heliosd.core.usage import Usage
from heliosd.simulation.fleet import Fleet, model_of
from heliosd.simulation.trace import Asked
from heliosd.simulation.world import World

PERIOD_S = 600.0
LIMITS = Limits(prefetch_loads=1)
G0 = Device(DeviceId("g0"), DeviceKind.SIMULATED, "H100", 80 * GiB)
CLOCK = model_of("clock", 20 * GiB).demand


def seeded(limits: Limits = LIMITS) -> Scheduler:
    """Another life knew that the clock is asked for every ten minutes, last at the time 0."""
    before = Usage()
    before.seeded(0.0, 1e9 - 10 * PERIOD_S, ())
    for turn in range(11):
        before.asked("clock", turn * PERIOD_S)
    scheduler = Scheduler(limits)
    scheduler.handle(UsageSeeded(1.0, 1e9, before.to_keep(["clock"])))
    scheduler.handle(DevicesFound(1.0, (G0,)))
    return scheduler


def woken(scheduler: Scheduler, until: float) -> list[tuple[float, StartReplica]]:
    """What starts while only time passes."""
    found: list[tuple[float, StartReplica]] = []
    at = 0.0
    for _ in range(1000):
        wakeup = scheduler.next_wakeup
        if wakeup is None or wakeup > until:
            return found
        at = max(at, wakeup)
        found += [(at, each) for each in scheduler.handle(Tick(at)) if isinstance(each, StartReplica)]
    raise AssertionError("it wants to be woken again and again")


def test_what_another_life_knew_starts_a_model_just_before_it_is_asked_for() -> None:
    scheduler = seeded()
    scheduler.handle(DemandsKnown(2.0, (CLOCK,)))
    ((at, start),) = woken(scheduler, PERIOD_S)
    assert PERIOD_S - 120 < at < PERIOD_S
    assert start.demand.model == "clock"
    assert start.reason.startswith("ahead of requests: asked within 60 s with 0.")
    assert "s saved; room is free on g0" in start.reason
    scheduler.handle(ReplicaBecameReady(at + 10.0, start.replica, CLOCK.per_device))
    scheduler.handle(RequestArrived(PERIOD_S, Ticket("t1"), "clock", CLOCK))
    assert scheduler.snapshot(PERIOD_S).preloads.hits == 1
    assert scheduler.replicas[start.replica].leases == {"t1"}


@pytest.mark.parametrize("limits", [Limits(), replace(LIMITS, prefetch_loads=0)])
def test_nothing_starts_when_it_is_switched_off(limits: Limits) -> None:
    scheduler = seeded(limits)
    scheduler.handle(DemandsKnown(2.0, (CLOCK,)))
    assert woken(scheduler, 2 * PERIOD_S) == []


def test_nothing_starts_of_which_nobody_knows_what_it_takes_any_more() -> None:
    scheduler = seeded()
    assert woken(scheduler, PERIOD_S) == []
    scheduler = seeded()
    scheduler.handle(DemandsKnown(2.0, (CLOCK,)))
    scheduler.handle(ModelsChanged(3.0))
    assert woken(scheduler, PERIOD_S) == []


def test_a_start_in_vain_is_not_repeated() -> None:
    scheduler = seeded()
    scheduler.handle(DemandsKnown(2.0, (replace(CLOCK, keep_alive_s=70.0),)))
    ((at, start),) = woken(scheduler, PERIOD_S)
    scheduler.handle(ReplicaBecameReady(at + 10.0, start.replica, CLOCK.per_device))
    commands = scheduler.handle(Tick(at + 80.0))
    assert any(isinstance(each, StopReplica) for each in commands)
    scheduler.handle(ReplicaExited(at + 81.0, start.replica, None))
    assert woken(scheduler, 5 * PERIOD_S) == []
    counted = scheduler.snapshot(at + 81.0).preloads
    assert (counted.hits, counted.misses) == (0, 1)
    assert counted.wasted_byte_s == pytest.approx(81.0 * start.demand.per_device.total_bytes)


def test_what_an_operator_stopped_stays_stopped_until_it_is_asked_for() -> None:
    scheduler = seeded()
    scheduler.handle(DemandsKnown(2.0, (CLOCK,)))
    ((at, start),) = woken(scheduler, PERIOD_S)
    scheduler.handle(ReplicaBecameReady(at + 1.0, start.replica, CLOCK.per_device))
    scheduler.handle(RequestArrived(at + 2.0, Ticket("t"), "clock", CLOCK))
    scheduler.handle(StopAsked(at + 3.0, start.replica))
    assert "clock" in scheduler.ahead.preloads.barred
    scheduler.handle(RequestArrived(at + 4.0, Ticket("u"), "clock", CLOCK))
    assert "clock" not in scheduler.ahead.preloads.barred


def test_written_and_read_again_it_starts_the_same() -> None:
    first = seeded()
    first.handle(DemandsKnown(2.0, (CLOCK,)))
    text = json.dumps(Codec().encode(Scheduler, first))
    second = Codec().decode(Scheduler, json.loads(text))
    assert json.dumps(Codec().encode(Scheduler, second)) == text
    assert woken(second, PERIOD_S) == woken(first, PERIOD_S)


def test_clocks_that_share_a_device_wait_less_and_nothing_is_lost() -> None:
    """Eight models of which three fit, each asked for every ten minutes, one after the other."""
    models = {f"m{number}": model_of(f"m{number}", 20 * GiB) for number in range(8)}
    fleet = Fleet((G0,), models)
    trace = [Asked(turn * PERIOD_S + number * 70.0, f"m{number}", 100, 50) for turn in range(20) for number in range(8)]
    outcomes = {}
    for limits in (Limits(), LIMITS):
        scheduler = Scheduler(replace(limits, sleep=False))
        outcome = World(fleet, scheduler).run(trace)
        assert (outcome.lost, outcome.doubled, outcome.overcommits, outcome.answered) == (0, 0, 0, len(trace))
        outcomes[limits] = outcome, scheduler.snapshot(outcome.span_s).preloads
    without, ahead = outcomes[Limits()][0], outcomes[LIMITS][0]
    counted = outcomes[LIMITS][1]
    assert outcomes[Limits()][1].hits == 0
    assert counted.hits > 80 and counted.misses < counted.hits / 5
    assert sum(ahead.first_token_s) < sum(without.first_token_s) / 2


@pytest.mark.parametrize(("keep_alive_s", "wakes"), [(30.0, 0), (70.0, 1)])
def test_a_sleeper_is_woken_ahead_unless_it_would_sleep_again_before_it_is_asked_for(
    keep_alive_s: float, wakes: int
) -> None:
    scheduler = seeded()
    clock = replace(CLOCK, keep_alive_s=keep_alive_s)
    (start, *_) = scheduler.handle(RequestArrived(PERIOD_S, Ticket("t1"), "clock", clock))
    assert isinstance(start, StartReplica)
    scheduler.handle(ReplicaBecameReady(PERIOD_S + 10, start.replica, clock.per_device, frozenset({2})))
    scheduler.handle(RequestReleased(PERIOD_S + 11, Ticket("t1")))
    at = PERIOD_S + 11 + keep_alive_s
    assert [each.level for each in scheduler.handle(Tick(at)) if isinstance(each, SleepReplica)] == [2]
    scheduler.handle(ReplicaSlept(at + 1, start.replica, 2, Footprint(0, 0, GiB), 0))
    woken_at = []
    while (wakeup := scheduler.next_wakeup) is not None and wakeup < 2 * PERIOD_S and not woken_at:
        at = max(at, wakeup)
        woken_at += [at for each in scheduler.handle(Tick(at)) if isinstance(each, WakeReplica)]
    assert len(woken_at) == wakes
    assert all(2 * PERIOD_S - 120 < each < 2 * PERIOD_S for each in woken_at)


def test_what_waits_for_room_comes_first() -> None:
    scheduler = seeded()
    large = model_of("large", 70 * GiB).demand
    scheduler.handle(DemandsKnown(2.0, (CLOCK,)))
    scheduler.handle(RequestArrived(3.0, Ticket("t1"), "large", large))
    other = model_of("other", 60 * GiB).demand
    scheduler.handle(ReplicaBecameReady(15.0, ReplicaId("r1"), large.per_device))
    scheduler.handle(RequestArrived(16.0, Ticket("t2"), "other", other))
    assert "t2" in scheduler.queue
    assert woken(scheduler, PERIOD_S) == []
