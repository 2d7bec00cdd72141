from hypothesis import given
from hypothesis import strategies as st

from heliosd.core.units import GiB, MiB
from tests.heliosctl.samples import device
from tui.bars import KINDS, apportion, bar, device_lines, devices_text, parts

amounts = st.lists(st.integers(0, 80 * GiB), min_size=1, max_size=6)


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


def test_the_parts_of_a_device_make_its_capacity():
    view = device()
    assert sum(parts(view)) == view.capacity_bytes
    assert dict(zip([kind.name for kind in KINDS], parts(view), strict=True))["overhead"] == 320 * MiB


def test_more_taken_than_there_is_leaves_nothing_free():
    view = device(foreign_bytes=8 * GiB)
    assert parts(view)[-1] == 0
    assert "·" not in bar(view, 40).plain


def test_the_bar_can_be_read_without_colour():
    glyphs = bar(device(), 60).plain
    assert len(glyphs) == 60
    assert [glyph for place, glyph in enumerate(glyphs) if glyphs[:place].count(glyph) == 0] == [
        kind.glyph for kind in KINDS
    ]


def test_a_line_fits_its_width():
    for width in (76, 116):
        lines = device_lines(device(name="GPU-8d7c0a1f-22"), width, detailed=True).plain.splitlines()
        assert [len(line) <= width for line in lines] == [True, True]
        assert lines[0].startswith("GPU-8d7c0a1f ")
        assert lines[0].endswith("2.0 GiB/8.0 GiB  63%  54°")
        assert "█ 256.0 MiB  ▓ 1.0 GiB  ▒ 320.0 MiB  x 512.0 MiB  - 128.0 MiB  · 5.8 GiB" in lines[1]


def test_a_fault_takes_the_place_of_the_figures():
    assert "FAULT fell off the bus" in device_lines(device(fault="fell off the bus"), 76, detailed=False).plain


def test_devices_come_with_a_legend():
    text = devices_text([device()], 76, detailed=False).plain
    for kind in KINDS:
        assert kind.name in text.splitlines()[-1]
    assert devices_text([], 76, detailed=True).plain == "no devices"
