"""What an hour wanted: the most at once, whatever came and went between two looks."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from heliosd.core.hours import WANTED, ModelHour, PlaceHour, Rows, Tally, need_bytes
from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import Ticket
from heliosd.core.units import GiB

A = Demand("org/a", "r", Footprint(10 * GiB, 30 * GiB, 2 * GiB), kv_least_bytes=GiB, max_num_seqs=2, max_replicas=2)
B = Demand("org/b", "r", Footprint(5 * GiB, GiB, 0), device_count=2)
ROOMS = [PlaceHour(7, "g0", 0, 70 * GiB)]


def wanted(rows: Rows) -> PlaceHour:
    (found,) = [row for row in rows.places if row.place == WANTED]
    return found


def models(rows: Rows) -> dict[tuple[int, str], ModelHour]:
    return {(row.hour, row.model): row for row in rows.models}


def test_a_large_cache_that_nobody_needs_is_not_needed():
    assert need_bytes(A.per_device, A.kv_least_bytes) == 13 * GiB
    assert need_bytes(A.per_device, A.kv_least_bytes, used_ratio=0.5) == 27 * GiB
    assert need_bytes(A.per_device, 0) == 42 * GiB, "it takes no smaller one"


def test_requests_at_once_and_the_longest():
    tally = Tally()
    tally.saw(7, {}, (), ROOMS)
    for number in range(3):
        tally.asked(7, Ticket(f"t{number}"), A, 100 * number)
    tally.left(Ticket("t0"))
    tally.left(Ticket("t0"))
    tally.left(Ticket("unknown"))
    tally.asked(7, Ticket("t3"), B, 50)
    rows = tally.take()
    assert models(rows)[7, "org/a"] == ModelHour(7, "org/a", 3, 3, 200, 0, 13 * GiB)
    assert models(rows)[7, "org/b"].need_bytes == 12 * GiB, "on both devices"
    # three requests take two replicas of two sequences each; two that are left take one, beside the other model
    assert wanted(rows) == PlaceHour(7, WANTED, 26 * GiB, 70 * GiB)


def test_an_hour_in_which_nobody_came_still_has_who_is_served():
    tally = Tally()
    tally.asked(7, Ticket("t"), A, 1)
    tally.take()
    tally.saw(8, {"org/a": 1, "org/idle": 1}, (), ROOMS)
    rows = tally.take()
    assert models(rows) == {(8, "org/a"): ModelHour(8, "org/a", 0, 1, 0, 1, 0)}
    assert wanted(rows).peak_bytes == 13 * GiB


def test_what_is_kept_ready_is_wanted():
    tally = Tally()
    tally.saw(7, {"org/b": 1}, [(B, 2)], ROOMS)
    assert wanted(tally.take()).peak_bytes == 24 * GiB
    tally.saw(8, {}, (), ROOMS)
    assert wanted(tally.take()).peak_bytes == 0


def test_what_could_not_be_kept_is_counted_on():
    tally = Tally()
    tally.asked(7, Ticket("t"), A, 5)
    rows = tally.take()
    tally.asked(7, Ticket("u"), A, 3)
    tally.give_back(rows)
    assert models(tally.take())[7, "org/a"] == ModelHour(7, "org/a", 2, 2, 5, 0, 13 * GiB)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.booleans()), max_size=60))
def test_the_total_is_the_sum_of_what_is_wanted(steps: list[tuple[str, int, bool]]):
    tally = Tally()
    live: dict[Ticket, Demand] = {}
    peak = 0
    for model, number, comes in steps:
        ticket, demand = Ticket(f"{model}{number}"), replace(A, model=model)
        if comes:
            tally.asked(7, ticket, demand, 1)
            live[ticket] = demand
            models = {each.model for each in live.values()}
            at_once = [sum(each.model == one for each in live.values()) for one in models]
            peak = max(peak, sum(min(2, -(-count // 2)) * 13 * GiB for count in at_once))
        else:
            tally.left(ticket)
            live.pop(ticket, None)
    rows = tally.take()
    assert not peak or wanted(rows).peak_bytes == peak
