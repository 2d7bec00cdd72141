"""How many processes made ahead there may be."""

from heliosd.core.hardware import HostReading
from heliosd.core.ledger import Ledger
from heliosd.core.messages import ShellsHeld
from heliosd.core.names import ReplicaId
from heliosd.core.scheduler import Scheduler
from heliosd.core.shells import LONGEST_RETRY_S, retry_s, room_for
from heliosd.core.units import GiB, MiB


def test_as_many_as_are_wanted_and_fit() -> None:
    assert room_for(2, 64 * MiB, GiB).count == 2
    assert room_for(2, 64 * MiB, 127 * MiB).count == 1
    assert room_for(2, 64 * MiB, -1).count == 0
    assert room_for(0, 64 * MiB, GiB).count == 0


def test_the_reason_has_the_arithmetic() -> None:
    reason = room_for(2, 64 * MiB, 100 * MiB).reason
    assert reason == "100.0 MiB of host memory are left for shells, and 2 take 128.0 MiB"


def test_tries_are_further_and_further_apart() -> None:
    assert [retry_s(failures) for failures in (0, 1, 2, 3)] == [0.0, 1.0, 2.0, 4.0]
    assert retry_s(1000) == LONGEST_RETRY_S


def test_they_give_way_to_sleepers_and_to_models_kept_ready() -> None:
    ledger = Ledger(host_bytes=10 * GiB)
    assert ledger.shell_room_bytes == 10 * GiB
    ledger.staged[ReplicaId("r1")] = 6 * GiB
    ledger.tier_bytes = 3 * GiB
    assert ledger.shell_room_bytes == GiB
    ledger.shell_bytes = GiB
    assert ledger.host_free_bytes == 4 * GiB, "what they hold is free for a sleeper"
    assert ledger.tier_room_bytes == 4 * GiB, "and for models kept ready"
    assert ledger.host_account().shell_bytes == GiB


def test_they_go_before_others_when_the_machine_runs_short() -> None:
    ledger = Ledger(host_bytes=50 * GiB, shell_bytes=GiB)
    ledger.host = HostReading(100 * GiB, 14 * GiB)
    assert ledger.shell_room_bytes == 0, "15 GiB of 100 are the reserve, three times"
    assert ledger.tier_room_bytes == 5 * GiB
    assert ledger.host_free_bytes == 10 * GiB


def test_the_scheduler_is_told_what_they_hold() -> None:
    scheduler = Scheduler()
    scheduler.handle(ShellsHeld(1.0, 64 * MiB))
    assert scheduler.snapshot(1.0).host.shell_bytes == 64 * MiB
