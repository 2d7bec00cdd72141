"""One frame of a screen as text, for `--once`, scripts and bug reports."""

import asyncio
from collections.abc import Sequence

from rich.console import Console
from rich.segment import Segment
from textual.app import App
from textual.strip import Strip

from heliosctl.exits import Failure
from tui.app import HeliosTop
from tui.feed import Feed
from tui.keyline import KeyLine

_QUIET_S = 0.1
_SO_OFTEN = 3


class OneFrame(HeliosTop):
    """The same screen without a terminal: it ends when everything that it shows has come and is drawn."""

    def __init__(self, feed: Feed, *, screen: str, read_only: bool) -> None:
        super().__init__(feed, screen=screen, read_only=read_only)
        self.strips: list[Strip] = []

    def begin(self) -> None:
        self.animation_level = "none"
        self.run_worker(self._shoot())

    async def _shoot(self) -> None:
        try:
            async for news in self.feed.once():
                self.take(news)
            await self.fetch()
        except Failure as failure:
            self.exit(failure, return_code=int(failure.exit_code))
            return
        same = 0
        while same < _SO_OFTEN or not self.query_one(KeyLine).ready:  # until nothing moves any more
            await asyncio.sleep(_QUIET_S)
            before, self.strips = self.strips, drawn(self)
            same = same + 1 if before == self.strips else 0
        self.exit()


def drawn(app: App[object] | HeliosTop) -> list[Strip]:
    """What is on the screen now, line by line."""
    return app.screen._compositor.render_strips()


def plain(strips: Sequence[Strip]) -> str:
    return "\n".join(strip.text.rstrip() for strip in strips)


async def take_frame(feed: Feed, screen: str, size: tuple[int, int], *, read_only: bool = False) -> list[Strip]:
    """The frame's lines. Raises Failure."""
    app = OneFrame(feed, screen=screen, read_only=read_only)
    failure = await app.run_async(headless=True, size=size, mouse=False)
    if failure is not None:
        raise failure
    return app.strips


def print_frame(strips: Sequence[Strip]) -> None:
    """With colours where stdout is a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        print(plain(strips))  # noqa: T201  # a command's data, not a log
        return
    for strip in strips:
        console.print(*_texts(strip), sep="", soft_wrap=True)


def _texts(strip: Strip) -> list[object]:
    from rich.text import Text

    return [Text(text, style or "") for text, style, control in map(Segment, *zip(*strip, strict=True)) if not control]
