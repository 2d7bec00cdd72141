"""What each screen looks like with twenty models, compared with `screens/*.txt`.

After a wanted change: `python -m pytest tests/tui/test_screens.py --rewrite`, and read the diff.
"""

from pathlib import Path

import pytest

from heliosctl.place import UnixPlace
from tests.tui.conftest import made
from tests.tui.looking import shown, until
from tui.commands import SCREENS
from tui.feed import Feed

FOLDER = Path(__file__).parent / "screens"
SIZES = [(80, 24), (160, 48)]


class Elsewhere(UnixPlace):
    """The socket, under a name that is the same each time."""

    def __str__(self) -> str:
        return "/run/helios/heliosd.sock"


def still() -> float:
    """A clock that stands: nothing grows older, nothing is sampled."""
    return 0.0


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("screen", [*SCREENS, "help", "question", "details"])
async def test_a_screen_looks_as_it_did(household, socket_path, utc, request, screen, size):
    first, keys = {"help": ("top", "?"), "question": ("replicas", "x"), "details": ("replicas", "⏎")}.get(
        screen, (screen, "")
    )
    top = made(Feed(Elsewhere(socket_path)), screen=first, clock=still)
    async with top.run_test(size=size) as pilot:
        await until(pilot, lambda: "quit" in shown(top) or (size[0] == 80 and "help" in shown(top)))
        await until(pilot, lambda: len(top.view.table.rows) > 0)
        for key in keys:
            await pilot.press({"?": "question_mark", "⏎": "enter"}.get(key, key))
            await until(pilot, lambda: top.screen is not top.screen_stack[0] and "asking" not in shown(top))
        await settled(pilot, top)
        text = shown(top) + "\n"
    lines = text.splitlines()
    assert len(lines) <= size[1] and max(map(len, lines)) <= size[0]
    file = FOLDER / f"{screen}-{size[0]}x{size[1]}.txt"
    if request.config.getoption("--rewrite", default=False):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text(), f"it looks different now; if that is wanted, see {__name__}"


async def settled(pilot, top) -> None:
    before = ""
    while before != (before := shown(top)) or not before:
        await pilot.pause(0.1)
