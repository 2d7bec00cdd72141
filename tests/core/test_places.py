"""What a start takes depends on the tier that its weights are read from."""

import pytest

from heliosd.core.codec import Codec
from heliosd.core.messages import Event, ModelsPlaced
from heliosd.core.places import Placed, Places, TierSpeed, speeds_of
from heliosd.core.retention import SPEEDS, Speed, Tier
from heliosd.core.start_forecast import SeenStart
from heliosd.core.storage_speed import Speed as Measured
from heliosd.core.units import GiB
from heliosd.core.usage import LOAD_BASE_S, Usage

EVEN = (
    TierSpeed(Tier.HOST, Speed(0.0, 10 * GiB)),
    TierSpeed(Tier.NVME, Speed(0.0, 2 * GiB)),
    TierSpeed(Tier.DISK, Speed(0.0, GiB // 4)),
)


def placed(model: str, **parts: int) -> Placed:
    return Placed(model, tuple((Tier(tier), gib * GiB) for tier, gib in parts.items()))


def known(*models: Placed) -> Usage:
    usage = Usage()
    usage.places.told(models, EVEN)
    return usage


def seen(weights_s: float, tier: Tier | None, gib: int = 10) -> SeenStart:
    return SeenStart((("fork", 1.0), ("weights", weights_s)), gib * GiB, "cuda", tier)


def test_the_slowest_tier_that_holds_more_than_crumbs_is_where_a_model_lies() -> None:
    places = known(placed("a", nvme=10), placed("b", host=6, nvme=4), placed("c", nvme=999, disk=1)).places
    assert [places.tier(model) for model in "abcd"] == [Tier.NVME, Tier.NVME, Tier.NVME, None]
    assert places.read_s("a") == 5.0
    assert places.read_s("b") == pytest.approx(0.6 + 2.0)
    assert places.read_s("b", 5 * GiB) == pytest.approx(0.3 + 1.0), "half of it, from where it is"
    assert places.read_s("d") is None


def test_a_model_that_never_started_takes_what_reading_it_from_its_tier_takes() -> None:
    usage = known(placed("ram", host=10), placed("ssd", nvme=10), placed("hdd", disk=10))
    assert [usage.reload(model, 12 * GiB) - LOAD_BASE_S for model in ("ram", "ssd", "hdd")] == [1.0, 5.0, 40.0]
    assert usage.reload("unknown", 12 * GiB) == LOAD_BASE_S + 6.0


def test_a_start_from_another_tier_is_told_of_by_what_the_reading_differs() -> None:
    usage = known(placed("m", nvme=10))
    usage.started("m", 9.0, seen(6.0, Tier.NVME))
    assert usage.reload("m", 12 * GiB) == 7.0
    usage.places.told([placed("m", disk=10)], ())
    assert usage.reload("m", 12 * GiB) == 1.0 + 1.0 + 40.0, "a second of the six was not the storage's"
    usage.places.told([placed("m", host=10)], ())
    assert usage.reload("m", 12 * GiB) == 1.0 + 1.0 + 1.0


def test_starts_from_the_tier_where_it_lies_now_count_alone() -> None:
    usage = known(placed("m", disk=10))
    for weights_s, tier in ((50.0, Tier.DISK), (0.5, Tier.HOST), (0.4, Tier.HOST), (6.0, Tier.NVME)):
        usage.started("m", 9.0, seen(weights_s, tier))
    assert usage.reload("m", GiB) == 51.0
    usage.places.told([], ())
    assert usage.reload("m", GiB) == 1.0 + 3.25, "nobody knows where it lies: the median of all"


def test_a_start_that_nobody_knew_the_tier_of_counts_as_it_was() -> None:
    usage = known(placed("m", disk=10))
    usage.started("m", 9.0, seen(6.0, None))
    assert usage.reload("m", GiB) == 7.0


def test_others_tell_of_a_model_for_its_bytes_and_its_tier() -> None:
    usage = known(placed("like it", nvme=10), placed("new", disk=20))
    usage.started("like it", 9.0, seen(5.0, Tier.NVME))
    told = usage.starts.expected("new", 20 * GiB, {"cuda"}, usage.places)
    assert told is not None
    assert dict(told.phases) == {"fork": 1.0, "weights": 80.0}


def test_what_lies_on_a_slow_tier_is_the_dearer_to_lose() -> None:
    usage = known(placed("fast", host=10), placed("slow", disk=10))
    for model in ("fast", "slow"):
        usage.asked(model, 0.0)
    assert usage.loss_s("slow", GiB, 1.0) > 5 * usage.loss_s("fast", GiB, 1.0) > 0


def test_a_swap_reads_from_the_tier_too() -> None:
    usage = known(placed("fast", host=10), placed("slow", disk=10))
    assert usage.swap("fast", 10 * GiB, 100.0) == pytest.approx(1.3)
    assert usage.swap("slow", 10 * GiB, 100.0) == pytest.approx(40.3)
    usage.swapped("slow", 33.0, SeenStart((("weights", 30.0), ("check", 2.0)), 10 * GiB, "cuda", Tier.DISK))
    assert usage.swap("slow", 10 * GiB, 100.0) == 32.0
    usage.places.told([placed("slow", host=10)], ())
    assert usage.swap("slow", 10 * GiB, 100.0) == 3.0


def test_what_doctor_measured_takes_the_place_of_what_is_assumed() -> None:
    slow = Measured("direct", 9e9, 9e9), Measured("read", 1e9, 8e9), Measured("helios", 3e9, None)
    found = speeds_of(slow)
    assert (found[Tier.NVME].bytes_per_s, found[Tier.HOST]) == (3e9, SPEEDS[Tier.HOST])
    assert speeds_of(slow[:2])[Tier.HOST].bytes_per_s == 8e9
    timed = SPEEDS | {Tier.DISK: Speed(0.1, 5e7)}
    assert speeds_of((), timed) == timed


def test_where_models_lie_is_told_as_plain_data_and_back() -> None:
    event = ModelsPlaced(1.0, (placed("a", host=1, disk=2),), EVEN)
    codec = Codec()
    assert codec.decode(Event, codec.encode(Event, event)) == event
    usage = known(placed("a", host=1))
    again = codec.decode(Places, codec.encode(Places, usage.places))
    assert again == usage.places
