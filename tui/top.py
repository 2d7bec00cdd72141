"""The first screen: devices, replicas, who waits and what happens, one below the other."""

from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from tui.bars import legend
from tui.devices import device_rows, device_table, device_text
from tui.events import Log, event_table, event_text
from tui.history import History
from tui.now import Now
from tui.replicas import replica_detail, replica_opened, replica_table, replica_wanted
from tui.table import Table
from tui.view import View
from tui.waiting import queue_table, waiting_text


class TopView(View):
    HELP: ClassVar[str] = """\
Tab       to the next panel; the keys work on the one with the cursor
MEMORY    of a replica is measured; with ~ it is still the prediction
STOPS IN  counts down while nobody uses the replica
"""
    DEFAULT_CSS = """
    TopView > #top-devices { height: auto; max-height: 40%; min-height: 2; }
    TopView > #top-queue { height: auto; max-height: 6; border-top: solid $warning; }
    TopView > #top-events { height: 1fr; border-top: solid $primary; }
    TopView > #top-replicas { height: 1fr; border-top: solid $primary; min-height: 5; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("z", "want('sleep')", "sleep"),
        Binding("w", "want('wake')", "wake"),
        Binding("x", "want('stop')", "stop"),
        Binding("p", "want('pin')", "pin"),
    ]

    def __init__(self, log: Log) -> None:
        super().__init__("top", replica_table("top-replicas"))
        self._log, self._seen = log, -1
        self._legend = Static(legend())
        self._devices = device_table(id="top-devices")
        self._queue = queue_table("top-queue")
        self._events = event_table("top-events")
        self._now: Now | None = None
        self._heights: dict[Table[Any], int] = {}

    def compose(self) -> ComposeResult:
        yield self._devices
        yield self._legend
        yield self.table
        yield self._queue
        yield self._events

    def on_mount(self) -> None:
        self._queue.display = False
        self.table.border_title = "replicas"
        self._events.border_title = "events"

    def show(self, now: Now, history: History, age_s: float) -> None:
        self._now = now
        self._heighten(self._devices, len(now.devices) + 1)
        self._devices.show(device_rows(now, history), age_s)
        self.table.show(now.replicas, age_s)
        if self._queue.display != bool(now.queue):
            self._queue.display = bool(now.queue)
        if now.queue:
            self._queue.border_title = f"queue: {len(now.queue)} waiting"
            self._heighten(self._queue, len(now.queue) + 2)
            self._queue.show(now.queue, age_s)
        if self._seen != self._log.seen:
            self._seen = self._log.seen
            self._events.show(self._log.lines)

    def _heighten(self, table: Table[Any], lines: int) -> None:
        """A height that stays as it is costs no new layout."""
        if self._heights.get(table) != lines:
            self._heights[table] = lines
            table.styles.height = lines

    def tick(self, history: History, age_s: float) -> None:
        for table in (self._devices, self.table, self._queue):
            table.tick(age_s)

    def on_table_chosen(self, message: Table.Chosen) -> None:
        message.stop()
        if message.table is self.table:
            self.post_message(replica_opened(message.row))
        elif message.table is self._events:
            self.post_message(View.Opened("event", event_text(message.row)))
        elif message.table is self._queue:
            self.post_message(View.Opened("request", waiting_text(message.row), explain=message.row["ticket"]))
        else:
            self.post_message(View.Opened("device", device_text(message.row, self._now, 70)))

    def detail(self, key: str) -> Text | None:
        return replica_detail(self._now, key)

    def action_want(self, verb: str) -> None:
        if self.table.row is not None:
            self.post_message(replica_wanted(verb, self.table.row))
