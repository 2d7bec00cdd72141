"""As much worth as fits: nothing twice, nothing too large, and as good as trying everything where that can be tried."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.core.names import DeviceId
from heliosd.core.packing import Item, Packing, Room, pack
from heliosd.core.units import GiB

A, B, C = (DeviceId(name) for name in "abc")


def item(name: str, gib: float, worth: float | None = None, devices: int = 1) -> Item:
    return Item(name, {"x": int(gib * GiB)}, gib if worth is None else worth, devices)


def rooms(*gib: float) -> list[Room]:
    return [Room(DeviceId(f"g{at}"), int(size * GiB), "x") for at, size in enumerate(gib)]


def test_what_fits_together_is_put_together() -> None:
    """Largest first alone would put 6 with 3 and leave one of the fours outside."""
    found = pack([item("six", 6), item("three", 3), item("four", 4), item("other", 4), item("two", 2)], rooms(10, 9))
    assert found.left == ()
    assert sum(found.free_bytes.values()) == 0


def test_worth_counts_and_not_size() -> None:
    found = pack([item("large", 10, worth=1), item("small", 2, worth=5), item("tiny", 1, worth=0)], rooms(10))
    assert (list(found.placed), found.left) == (["small"], ("large",))


def test_an_item_of_two_devices_takes_equal_ones_and_is_worth_what_gives_way() -> None:
    two = [Room(A, 10 * GiB, "x"), Room(B, 10 * GiB, "y"), Room(C, 10 * GiB, "x")]
    both = Item("both", {"x": 8 * GiB, "y": 8 * GiB}, 50, 2)
    single = [Item(f"s{at}", {"x": 9 * GiB}, 10) for at in range(2)]
    assert pack([both, *single], two).placed == {"both": (A, C)}
    cheap = Item("both", {"x": 8 * GiB, "y": 8 * GiB}, 15, 2)
    assert set(pack([cheap, *single], two).placed) == {"s0", "s1"}


def test_sizes_differ_by_kind_and_some_cannot_run_it() -> None:
    found = pack(
        [Item("fp8", {"new": 5 * GiB}, 5), Item("any", {"new": 6 * GiB, "old": 8 * GiB}, 6), Item("none", {}, 9)],
        [Room(A, 6 * GiB, "new"), Room(B, 8 * GiB, "old")],
    )
    assert found.placed == {"fp8": (A,), "any": (B,)}
    assert found.left == ("none",)


ITEMS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 20), st.sampled_from([1, 1, 1, 2])), max_size=6)
ROOMS = st.lists(st.integers(4, 20), min_size=1, max_size=3)


def worth_of_everything(items: list[Item], there: list[Room]) -> float:
    """By trying every place of every item."""
    places: list[tuple[int, ...]] = [(), *((at,) for at in range(len(there)))]
    places += [(one, other) for one in range(len(there)) for other in range(one + 1, len(there))]
    best = 0.0
    for chosen in product(places, repeat=len(items)):
        if any(devices and len(devices) != each.device_count for devices, each in zip(chosen, items, strict=True)):
            continue
        free = [room.free_bytes for room in there]
        for devices, each in zip(chosen, items, strict=True):
            for device in devices:
                free[device] -= each.sizes["x"]
        if min(free) >= 0:
            best = max(best, sum(each.worth for devices, each in zip(chosen, items, strict=True) if devices))
    return best


def checked(items: list[Item], there: list[Room]) -> Packing:
    found = pack(items, there)
    assert set(found.placed) | set(found.left) == {each.name for each in items}
    assert not set(found.placed) & set(found.left)
    for room in there:
        taken = sum(each.sizes["x"] for each in items if room.device in found.placed.get(each.name, ()))
        assert found.free_bytes[room.device] == room.free_bytes - taken >= 0
    for each in items:
        assert len(set(found.placed.get(each.name, ()))) in (0, each.device_count)
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(ITEMS, ROOMS)
def test_it_is_nearly_the_best_there_is(drawn: list[tuple[int, int, int]], sizes: list[int]) -> None:
    items = [item(f"m{at}", size, float(worth), devices) for at, (size, worth, devices) in enumerate(drawn)]
    there = rooms(*sizes)
    found = checked(items, there)
    assert found.worth >= 0.9 * worth_of_everything(items[:5], there) if len(items) <= 5 else found.worth >= 0
    assert pack(reversed(items), reversed(there)).worth == found.worth, "the order of asking changes nothing"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(ITEMS, ROOMS, st.integers(4, 20))
def test_more_room_is_never_worth_less_than_nine_tenths(
    drawn: list[tuple[int, int, int]], sizes: list[int], more: int
) -> None:
    items = [item(f"m{at}", size, float(worth), devices) for at, (size, worth, devices) in enumerate(drawn)]
    assert checked(items, rooms(*sizes, more)).worth >= 0.9 * checked(items, rooms(*sizes)).worth
