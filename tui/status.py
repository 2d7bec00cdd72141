"""The lines at the top: whose news these are, or why there are none; and the names of the screens."""

from rich.text import Text
from textual import events
from textual.message import Message
from textual.widgets import Static

from tui.commands import SCREENS
from tui.feed import Lost
from tui.now import Now
from tui.words import lost_line, node_line


class StatusLine(Static):
    DEFAULT_CSS = (
        "StatusLine { height: auto; max-height: 4; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }"
    )

    def __init__(self, place: str) -> None:
        super().__init__(f"connecting to {place} …", markup=False)
        self._place = place
        self._now: Now | None = None
        self._drawn: Text | None = None

    def show(self, now: Now, age_s: float) -> None:
        self._now = now
        self.tick(age_s)

    def lost(self, lost: Lost) -> None:
        self._now = None
        self._draw(lost_line(lost.reason, self._place, lost.retry_s, lost.since))

    def tick(self, age_s: float) -> None:
        now = self._now
        if now is not None:
            self._draw(node_line(now.node, now.states, len(now.queue), self._place, age_s))

    def _draw(self, text: Text) -> None:
        """A line that stays as it is costs nothing."""
        if text != self._drawn:
            layout = self._drawn is None or self._drawn.plain.count("\n") != text.plain.count("\n")
            self._drawn = text
            self.update(text, layout=layout)


class Tabs(Static):
    """The screens with their keys; a click goes there."""

    DEFAULT_CSS = "Tabs { height: 1; background: $boost; }"

    class Clicked(Message):
        def __init__(self, screen: str) -> None:
            super().__init__()
            self.screen_name = screen

    def __init__(self) -> None:
        super().__init__()
        self._spans: list[tuple[int, int, str]] = []

    def show(self, here: str, read_only: bool) -> None:
        text = Text(no_wrap=True)
        self._spans = []
        for number, name in enumerate(SCREENS, 1):
            begin = len(text)
            text.append(f"{number} {name}", "bold reverse" if name == here else "")
            self._spans.append((begin, len(text), name))
            text.append(" ")
        if read_only:
            text.append("  read-only", "italic")
        self.update(text)

    def on_click(self, event: events.Click) -> None:
        for begin, end, name in self._spans:
            if begin <= event.x < end:
                self.post_message(self.Clicked(name))
