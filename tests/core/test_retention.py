"""Which blobs go where, and why: by calling the policy."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.core.names import Digest
from heliosd.core.retention import SPEEDS, Kept, Piece, Tier, pieces, plan, saved_s, worth
from heliosd.core.units import GiB

EVERYWHERE = {Tier.NVME: 10 * GiB, Tier.DISK: 100 * GiB}


def piece(name: str, gib: int, chance: float = 0.0, at: Tier = Tier.NVME, **more: object) -> Piece:
    return Piece((name,), frozenset({Digest(name)}), gib * GiB, chance, at, **more)  # type: ignore[arg-type]


def moved(found: list[Piece], budgets: dict[Tier, int] = EVERYWHERE, **more: int) -> list[tuple[str, Tier, Tier]]:
    return [(move.piece.name, move.source, move.target) for move in plan(budgets, found, **more).moves]


def test_while_all_fit_nothing_moves():
    assert moved([piece("a", 5), piece("b", 5, 1.0)]) == []


def test_who_is_worth_least_makes_room_for_who_is_worth_more():
    found = [piece("cold", 6, 0.01), piece("warm", 4, 0.5), piece("hot", 5, 0.9, Tier.DISK)]
    assert moved(found) == [("cold", Tier.NVME, Tier.DISK), ("hot", Tier.DISK, Tier.NVME)]
    (down, up) = plan(EVERYWHERE, found).moves
    assert down.reason.startswith("likely by 1% to be loaded within ten minutes, it is worth least of the 10.0 GiB")
    assert f"{saved_s(found[2], Tier.NVME, SPEEDS):.1f} s sooner" in up.reason
    assert down.seconds == SPEEDS[Tier.DISK].read_s(6 * GiB)


def test_who_has_the_place_keeps_it_against_nearly_equals():
    found = [piece("here", 8, 0.5), piece("there", 8, 0.6, Tier.DISK)]
    assert moved(found) == []
    assert moved([piece("here", 8, 0.5), piece("there", 8, 0.9, Tier.DISK)]) != []


def test_who_is_hardly_ever_read_stays_below_though_there_is_room():
    assert moved([piece("never", 1, 0.01, Tier.DISK)]) == []
    assert moved([piece("often", 1, 0.5, Tier.DISK)]) == [("often", Tier.DISK, Tier.NVME)]


def test_what_is_in_use_is_never_moved_even_against_a_wish():
    found = [
        piece("used", 9, 0.0, held=True, wish=Tier.DISK),
        piece("also used", 5, 1.0, Tier.DISK, held=True, wish=Tier.NVME),
    ]
    assert moved(found, {Tier.NVME: 1 * GiB, Tier.DISK: 100 * GiB, Tier.HOST: 100 * GiB}) == []


def test_room_is_made_before_something_comes_and_nothing_moves_up_meanwhile():
    found = [piece("a", 4, 0.1), piece("b", 4, 0.9), piece("c", 1, 1.0, Tier.DISK)]
    assert moved(found, room_for_bytes=5 * GiB) == [("a", Tier.NVME, Tier.DISK)]
    assert moved(found, room_for_bytes=20 * GiB) == [("a", Tier.NVME, Tier.DISK), ("b", Tier.NVME, Tier.DISK)]


def test_a_full_disk_is_said_with_the_arithmetic_and_its_room_is_not_promised():
    tight = {Tier.NVME: 5 * GiB, Tier.DISK: 6 * GiB}
    found = [piece("a", 5, 0.01), piece("b", 5, 1.0, Tier.DISK)]
    planned = plan(tight, found)
    assert planned.moves == ()
    assert planned.unmet == (
        "a cannot go to disk: it has 5.0 GiB and the disk has 1.0 GiB of its 6.0 GiB left; "
        "raise store.disk_budget or remove models",
    )


def test_wishes_go_first_and_one_for_no_tier_is_told():
    found = [piece("a", 5, 1.0, wish=Tier.DISK), piece("b", 5, 0.0, Tier.DISK, wish=Tier.NVME)]
    assert moved(found) == [("a", Tier.NVME, Tier.DISK), ("b", Tier.DISK, Tier.NVME)]
    planned = plan({Tier.NVME: 10 * GiB}, found)
    assert planned.moves == () and "there is no store.disk_dir" in planned.unmet[0]


def test_ram_takes_what_is_worth_most_for_its_bytes_and_lets_go_when_it_shrinks():
    budgets = {**EVERYWHERE, Tier.NVME: 100 * GiB, Tier.HOST: 6 * GiB}
    found = [piece("a", 4, 0.9), piece("b", 4, 0.5), piece("c", 2, 0.4), piece("d", 1, 0.0)]
    assert moved(found, budgets) == [("a", Tier.NVME, Tier.HOST), ("c", Tier.NVME, Tier.HOST)]
    staged = [piece("a", 4, 0.9, staged=True), piece("c", 2, 0.4, staged=True)]
    assert moved(staged, {**budgets, Tier.HOST: 4 * GiB}) == [("c", Tier.HOST, Tier.NVME)]
    assert moved(staged, {**budgets, Tier.HOST: 0}) == [("a", Tier.HOST, Tier.NVME), ("c", Tier.HOST, Tier.NVME)]
    wish = plan({**budgets, Tier.HOST: 1 * GiB}, [piece("a", 4, wish=Tier.HOST)])
    assert wish.unmet[0].startswith("a cannot stay in host memory: it has 4.0 GiB and 1.0 GiB of 1.0 GiB are left")


def test_what_models_share_is_one_piece_as_likely_read_as_any_of_them():
    base, tune = Digest("base"), Digest("tune")
    models = [Kept("a", ((base, 10),), 0.5), Kept("b", ((base, 10), (tune, 1)), 0.5, Tier.DISK)]
    found = {each.models: each for each in pieces(models, {tune}, {base}, {tune})}
    shared, own = found[("a", "b")], found[("b",)]
    assert (shared.n_bytes, shared.chance, shared.at, shared.staged) == (10, 0.75, Tier.NVME, True)
    assert (own.n_bytes, own.chance, own.at, own.held, own.wish) == (1, 0.5, Tier.DISK, True, Tier.DISK)
    assert shared.wish is None, "a wish for the disk is not one for what others need too"
    assert shared.name == "a and 1 more"


def test_worth_is_chance_times_seconds_saved_over_bytes():
    each = piece("a", 2, 0.5)
    saved = SPEEDS[Tier.DISK].read_s(2 * GiB) - SPEEDS[Tier.NVME].read_s(2 * GiB)
    assert worth(each, Tier.NVME, SPEEDS) == pytest.approx(0.5 * saved / (2 * GiB))


PIECES = st.lists(
    st.builds(
        lambda gib, chance, at, staged, held, wish: (gib, chance, at, staged, held, wish),
        st.integers(0, 8),
        st.floats(0, 1),
        st.sampled_from([Tier.NVME, Tier.DISK]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([None, *Tier]),
    ),
    max_size=12,
)


@given(PIECES, st.integers(0, 40), st.integers(0, 40), st.integers(0, 20), st.integers(0, 10))
def test_moves_keep_every_budget_at_every_step_and_come_to_an_end(rows, nvme, disk, host, room):
    found = [
        piece(f"p{number}", gib, chance, at, staged=staged, held=held, wish=wish)
        for number, (gib, chance, at, staged, held, wish) in enumerate(rows)
    ]
    budgets = {Tier.NVME: nvme * GiB, Tier.DISK: disk * GiB, Tier.HOST: host * GiB}
    places = {each.name: each for each in found}

    def used(tier: Tier) -> int:
        there = [each for each in places.values() if (each.staged if tier is Tier.HOST else each.at is tier)]
        return sum(each.n_bytes for each in there)

    rounds = 0
    while moves := plan(budgets, list(places.values()), room_for_bytes=room * GiB).moves:
        rounds += 1
        assert rounds < 5, f"it goes to and fro: {moves}"
        for move in moves:
            before = {tier: used(tier) for tier in budgets}
            was = places[move.piece.name]
            at = was.at if Tier.HOST in (move.source, move.target) else move.target
            assert at is was.at or not was.held, "what is in use was moved"
            staged = move.target is Tier.HOST or (was.staged and move.source is not Tier.HOST)
            places[was.name] = replace(was, at=at, staged=staged)
            for tier, budget in budgets.items():
                assert used(tier) <= max(budget, before[tier]), f"{move} fills {tier}"
    assert room or used(Tier.HOST) <= budgets[Tier.HOST]
