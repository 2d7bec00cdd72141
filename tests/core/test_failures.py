"""Who waits for a model that failed: how long, for what, and when that is over."""

from dataclasses import replace

from heliosd.core.hardware import Device, DeviceKind, DeviceReading
from heliosd.core.messages import (
    Demand,
    DevicesFound,
    DevicesRead,
    Footprint,
    Hold,
    Limits,
    RefusalCode,
    Refuse,
    ReplicaBecameReady,
    ReplicaExited,
    RequestArrived,
    RequestReleased,
    StartReplica,
    Tick,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB

MODEL = Demand("llama", "rev", Footprint(40 * GiB, 10 * GiB, 0), kv_least_bytes=GiB)


def node(*sizes: int) -> Scheduler:
    """A device for each size, in GiB; starts are tried again after two seconds."""
    scheduler = Scheduler(Limits(safety_ratio=0.0, retry_after_failure_s=2.0))
    devices = (Device(DeviceId(f"g{at}"), DeviceKind.SIMULATED, "card", size * GiB) for at, size in enumerate(sizes))
    scheduler.handle(DevicesFound(0.0, tuple(devices)))
    return scheduler


def ask(
    scheduler: Scheduler, ticket: str, at: float, demand: Demand = MODEL, until: float | None = None
) -> list[object]:
    return list(scheduler.handle(RequestArrived(at, Ticket(ticket), demand.model, demand, until)))


def failed_start(scheduler: Scheduler, number: int, at: float, cause: str = "no kernel") -> list[object]:
    return list(scheduler.handle(ReplicaExited(at, ReplicaId(f"r{number}"), cause)))


def read(scheduler: Scheduler, device: str, at: float, fault: str | None) -> list[object]:
    return list(scheduler.handle(DevicesRead(at, (DeviceReading(DeviceId(device), 0, 0, fault=fault),), ())))


def test_who_comes_in_the_pause_is_told_where_it_failed_and_when_it_is_tried_again() -> None:
    scheduler = node(80)
    ask(scheduler, "t1", 0.0)
    failed_start(scheduler, 1, 1.0)
    (held,) = ask(scheduler, "t2", 1.5, until=60.0)
    assert isinstance(held, Hold)
    assert held.reason == "llama failed on g0 (1 in a row, the last: no kernel), and is tried again after a pause"
    reload_s = scheduler.usage.reload("llama", 50 * GiB)
    assert held.eta_s == 1.5 + reload_s, "what is left of the pause, and a start"
    assert scheduler.next_wakeup == 3.0, "nothing else would end the pause"
    assert any(isinstance(each, StartReplica) for each in scheduler.handle(Tick(3.0)))


def test_at_its_limit_the_request_learns_which_device_and_why() -> None:
    scheduler = node(80)
    ask(scheduler, "t1", 0.0)
    failed_start(scheduler, 1, 1.0)
    ask(scheduler, "t2", 1.5, until=2.5)
    assert scheduler.next_wakeup == 2.5
    (refused,) = scheduler.handle(Tick(2.5))
    assert isinstance(refused, Refuse)
    assert refused.code is RefusalCode.DEADLINE
    assert "llama failed on g0 (1 in a row, the last: no kernel)" in refused.reason


def test_who_waits_for_a_model_that_failed_is_in_nobodys_way() -> None:
    scheduler = node(80)
    ask(scheduler, "t1", 0.0)
    failed_start(scheduler, 1, 1.0)
    ask(scheduler, "t2", 1.5)
    commands = ask(scheduler, "t3", 1.6, replace(MODEL, model="qwen"))
    assert any(isinstance(each, StartReplica) and each.demand.model == "qwen" for each in commands)


def test_a_model_that_failed_on_two_places_waits_though_there_is_a_third() -> None:
    scheduler = node(80, 80, 80)
    ask(scheduler, "t1", 0.0)
    failed_start(scheduler, 1, 1.0)
    failed_start(scheduler, 2, 1.5)
    (held,) = ask(scheduler, "t2", 2.0)
    assert isinstance(held, Hold)
    assert "g0 (1 in a row, the last: no kernel), g1 (1 in a row, the last: no kernel)" in held.reason


def test_what_fails_and_what_failed_are_both_named() -> None:
    scheduler = node(80, 80)
    read(scheduler, "g1", 0.0, "GPU is lost")
    ask(scheduler, "t1", 0.0)
    failed_start(scheduler, 1, 1.0)
    (held,) = ask(scheduler, "t2", 1.5)
    assert isinstance(held, Hold)
    assert held.reason.endswith(
        "g0 (1 in a row, the last: no kernel), and is tried again after a pause; out for now: g1 (GPU is lost)"
    )
    commands = read(scheduler, "g1", 2.0, None)
    assert any(isinstance(each, StartReplica) and each.devices == ("g1",) for each in commands)


def test_a_model_that_outgrew_the_node_is_refused_also_in_a_pause() -> None:
    scheduler = node(80)
    ask(scheduler, "t1", 0.0)
    failed_start(scheduler, 1, 1.0)
    (refused,) = ask(scheduler, "t2", 1.5, replace(MODEL, per_device=Footprint(200 * GiB, 0, 0)))
    assert isinstance(refused, Refuse)
    assert refused.code is RefusalCode.CANNOT_FIT


def test_a_device_that_fails_takes_nothing_from_the_kv_cache_of_those_who_wait_for_it() -> None:
    scheduler = node(80)
    read(scheduler, "g0", 0.0, "GPU is lost")
    (held,) = ask(scheduler, "t1", 1.0)
    assert isinstance(held, Hold)
    assert (held.reason, held.eta_s) == (
        "needs 50.0 GiB; what could hold it is out for now: g0 (GPU is lost)",
        None,
    )
    (started,) = [each for each in read(scheduler, "g0", 2.0, None) if isinstance(each, StartReplica)]
    assert started.demand.per_device == MODEL.per_device


def test_a_smaller_device_that_works_takes_it_with_a_smaller_kv_cache() -> None:
    scheduler = node(80, 45)
    read(scheduler, "g0", 0.0, "GPU is lost")
    (started,) = [each for each in ask(scheduler, "t1", 1.0) if isinstance(each, StartReplica)]
    assert started.devices == ("g1",)
    assert started.demand.per_device.kv_cache_bytes == 5 * GiB


def test_the_start_of_a_device_that_came_back_serves_who_waited_through_its_failure() -> None:
    scheduler = node(80)
    ask(scheduler, "t1", 0.0)
    read(scheduler, "g0", 1.0, "GPU is lost")
    commands = failed_start(scheduler, 1, 1.5, "CUDA error: device lost")
    assert not any(isinstance(each, Refuse) for each in commands), "no fault of the model"
    read(scheduler, "g0", 2.0, None)
    commands = list(scheduler.handle(Tick(3.5)))
    assert any(isinstance(each, StartReplica) for each in commands)
    scheduler.handle(ReplicaBecameReady(9.0, ReplicaId("r2"), MODEL.per_device))
    assert not scheduler.queue
    scheduler.handle(RequestReleased(9.0, Ticket("t1")))


def test_whoever_would_wait_long_for_what_failed_often_learns_the_cause_at_once() -> None:
    scheduler = node(80)
    at = 0.0
    for number in range(1, 5):  # pauses of 2, 4, 8 and 16 seconds
        ask(scheduler, f"t{number}", at)
        failed_start(scheduler, number, at + 1.0)
        at = scheduler.pool.breakers.open_for("llama", at + 1.0)[(DeviceId("g0"),)].retry_at
    (refused,) = ask(scheduler, "late", at - 12.0)
    assert isinstance(refused, Refuse)
    assert (refused.code, refused.retry_after_s, refused.cause) == (RefusalCode.ENGINE_FAILED, 12.0, "no kernel")
    assert refused.reason.startswith("cannot start now: llama failed on g0 (4 in a row")
    (held,) = ask(scheduler, "soon", at - 9.0)
    assert isinstance(held, Hold)
