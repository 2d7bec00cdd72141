from hypothesis import given
from hypothesis import strategies as st

from heliosd.core.units import GiB, MiB
from tests.heliosctl.samples import device
from tui.bars import accounted, apportion, bar, legend, parts
from tui.now import Held
from tui.palette import KINDS

amounts = st.lists(st.integers(0, 80 * GiB), min_size=1, max_size=8)
HELD = Held(kv_used_bytes=256 * MiB, sleepers_bytes=64 * MiB)


@given(amounts, st.integers(0, 200))
def test_all_cells_are_given_and_nothing_present_is_hidden(amounts, width):
    cells = apportion(amounts, width)
    assert sum(cells) == (width if sum(amounts) else 0)
    present = [place for place, amount in enumerate(amounts) if amount]
    assert all(cells[place] == 0 for place in range(len(amounts)) if place not in present)
    if len(present) <= width:
        assert all(cells[place] >= 1 for place in present)


@given(amounts)
def test_with_room_enough_no_share_is_off_by_more_than_the_cells_of_the_tiny(amounts):
    width = 1000
    for amount, cells in zip(amounts, apportion(amounts, width), strict=True):
        if sum(amounts):
            assert abs(cells - amount * width / sum(amounts)) <= len(amounts)


@given(st.integers(0, 4 * GiB), st.integers(0, 4 * GiB))
def test_the_parts_of_a_device_make_its_capacity(used, sleepers):
    view = device()
    named = dict(zip([kind.name for kind in KINDS], parts(view, Held(used, sleepers)), strict=True))
    assert sum(named.values()) == view.capacity_bytes
    assert named["KV used"] + named["KV reserved"] == view.kv_cache_bytes
    assert named["activations+graphs"] + named["sleepers"] == 320 * MiB
    assert all(amount >= 0 for amount in named.values())


def test_more_taken_than_there_is_leaves_nothing_free():
    view = device(foreign_bytes=8 * GiB)
    assert parts(view, HELD)[-1] == 0
    assert all("·" not in cell.text for cell in bar(view, HELD, 40))


def test_the_bar_can_be_read_without_colour():
    glyphs = "".join(cell.text for cell in bar(device(), HELD, 60))
    assert len(glyphs) == 60
    first = [glyph for place, glyph in enumerate(glyphs) if glyph not in glyphs[:place]]
    assert first == [kind.glyph for kind in KINDS]
    assert len({kind.glyph for kind in KINDS}) == len({kind.style for kind in KINDS}) == len(KINDS)


def test_the_figures_name_every_part_and_fit():
    for width in (76, 156):
        lines = accounted(device(), HELD, width).plain.splitlines()
        assert max(map(len, lines)) <= width
        assert "▓▓ KV used            256.0 MiB" in "\n".join(lines)
        assert all(kind.name in "\n".join(lines) for kind in KINDS)


def test_the_legend_fits_a_small_terminal_and_has_every_glyph():
    assert len(legend().plain) < 80
    assert all(kind.glyph in legend().plain for kind in KINDS)
