"""The screen of what happened and why."""

import json
from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text

from heliosd.wire import EventView
from tui.columns import Cell, Column
from tui.history import History
from tui.now import Now
from tui.palette import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from tui.table import Table
from tui.view import View
from tui.words import clock

KEPT = 2000
_STYLES = {
    "warning": ORANGE, "fault": VERMILION, "refuse": VERMILION, "exited": VERMILION, "retry": ORANGE,
    "start": SKY, "ready": GREEN, "grant": GREEN, "awake": GREEN, "asleep": PURPLE, "sleep": PURPLE,
    "stop": ORANGE, "drain": ORANGE, "hold": BLUE, "screen": ORANGE,
}  # fmt: skip


class Log:
    """The last journal lines, and lines of the screen's own, such as that the daemon was away."""

    def __init__(self) -> None:
        self._lines: deque[EventView] = deque(maxlen=KEPT)
        self._own = 0
        self.seen = 0
        """How many there ever were; tells whether there are new ones."""

    def tell(self, event: EventView) -> None:
        self.seen += 1
        if event.id == 0:  # a state change has no number; the table needs names
            self._own -= 1
            event = event.model_copy(update={"id": self._own})
        self._lines.append(event)

    def remark(self, text: str, at: float) -> None:
        self.tell(EventView(id=0, at=at, kind="screen", message=text))

    @property
    def lines(self) -> Sequence[EventView]:
        return self._lines


def _about(event: EventView) -> str:
    return event.replica or event.ticket or event.model or ""


COLUMNS: tuple[Column[EventView], ...] = (
    Column("TIME", 8, lambda it, _: clock(it.at)),
    Column("KIND", 8, lambda it, _: Cell(it.kind, f"bold {_STYLES.get(it.kind, '')}"), lambda it: it.kind),
    Column("WHAT AND WHY", 30, lambda it, _: it.message, grows=True),
    Column("ABOUT", 12, lambda it, _: _about(it), _about, rank=2),
    Column("MODEL", 28, lambda it, _: it.model or "", lambda it: it.model or "", rank=3),
)


def event_table(id: str | None = None) -> Table[EventView]:
    return Table(
        COLUMNS,
        parse=lambda event: event,
        key=lambda event: event.id,
        words=lambda event: " ".join(
            filter(None, (event.kind, event.message, event.model, event.replica, event.ticket))
        ),
        empty="nothing has happened yet",
        follow=True,
        id=id,
    )


def event_text(event: EventView) -> Text:
    """All of one line, with the numbers behind it."""
    text = Text(f"{clock(event.at)} {event.kind}\n", "bold")
    text.append(event.message, "not bold")
    for name in ("model", "replica", "ticket"):
        if (value := getattr(event, name)) is not None:
            text.append(f"\n{name:<8} {value}", "not bold")
    if event.detail:
        text.append(f"\n\n{json.dumps(event.detail, indent=1)}", "not bold")
    return text


class EventsView(View):
    HELP: ClassVar[str] = """\
The newest is last, and is followed while the cursor is on it.
Enter shows a line with the numbers behind it.
"""

    DEFAULT_CSS = "EventsView > .foot { height: 5; }"

    def __init__(self, log: Log) -> None:
        super().__init__("events", event_table(), foot=True)
        self._log = log
        self._seen = -1

    def show(self, now: Now, history: History, age_s: float) -> None:
        if self._seen != self._log.seen:
            self._seen = self._log.seen
            self.table.show(self._log.lines)

    def on_table_moved(self, message: Table.Moved) -> None:
        message.stop()
        if self.foot is not None:
            text = Text("") if message.row is None else Text(message.row.message)
            self.foot.draw(text)

    def on_table_chosen(self, message: Table.Chosen) -> None:
        message.stop()
        self.post_message(View.Opened("event", event_text(message.row)))
