"""How a file is cut into what is found elsewhere and what is not."""

from heliosd.core.names import Digest
from heliosd.store.matching import Run, Span, delta_bytes, delta_offsets, recipe_of, runs_of
from heliosd.store.recipe import Piece, Recipe, from_row, joined, to_row

A, B, D = Digest("a" * 64), Digest("b" * 64), Digest("d" * 64)


def spans(*sizes: int) -> list[Span]:
    return [Span((f"t{number}", "U8", (size,)), sum(sizes[:number]), size) for number, size in enumerate(sizes)]


def test_neighbours_that_are_neighbours_there_too_are_one_run() -> None:
    first, second, third = spans(10, 20, 30)
    places = {first: Piece(A, 100, 10), second: Piece(A, 110, 20), third: Piece(A, 900, 30)}
    assert runs_of([first, second, third], places, least_bytes=1) == (
        Run(0, 30, Piece(A, 100, 30)),
        Run(30, 30, Piece(A, 900, 30)),
    )


def test_a_short_run_between_changes_counts_as_changed() -> None:
    first, second, third, last = spans(10, 5, 10, 50)
    places = {second: Piece(A, 10, 5), last: Piece(A, 25, 50)}
    assert runs_of([first, second, third, last], places, least_bytes=20) == (
        Run(0, 25, None),
        Run(25, 50, places[last]),
    )


def test_changed_runs_begin_on_pages() -> None:
    runs = (Run(0, 5000, None), Run(5000, 10, Piece(A, 0, 10)), Run(5010, 7, None))
    assert delta_offsets(runs) == ((runs[0], 0), (runs[2], 8192))
    assert delta_bytes(runs) == 8199
    assert recipe_of(runs, D).pieces == (Piece(D, 0, 5000), Piece(A, 0, 10), Piece(D, 8192, 7))


def test_nothing_changed_needs_no_blob() -> None:
    runs = (Run(0, 10, Piece(A, 5, 10)), Run(10, 10, Piece(B, 0, 10)))
    assert delta_bytes(runs) == 0
    assert recipe_of(runs, None).blobs == {A, B}


def test_a_recipe_is_read_back_and_cut_anywhere() -> None:
    recipe = joined([Piece(A, 0, 10), Piece(A, 10, 5), Piece(B, 7, 5)])
    assert recipe.pieces == (Piece(A, 0, 15), Piece(B, 7, 5))
    assert from_row(to_row(recipe)) == recipe
    assert recipe.size_bytes == 20
    assert recipe.between(12, 5) == (Piece(A, 12, 3), Piece(B, 7, 2))
    assert recipe.between(18, 100) == (Piece(B, 10, 2),)
    assert recipe.between(20, 1) == ()
    assert (recipe.least_bytes(A), recipe.least_bytes(B), recipe.least_bytes(D)) == (15, 12, 0)
    assert Recipe(()).between(0, 5) == ()
