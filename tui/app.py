"""The one screen: gives each panel its part of the news, and opens what lies over it."""

from typing import ClassVar, assert_never

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer

from heliosctl.exits import Exit, Failure
from heliosd.core.units import format_seconds
from heliosd.wire import EventView, Snapshot
from tui.events import EventLog
from tui.feed import Connected, Feed, Lost, News
from tui.gpus import DevicesPanel
from tui.replicas import QueueTable, ReplicaTable
from tui.screens import KeysScreen, ReplicaScreen
from tui.status import StatusLine


class HeliosTop(App[Failure | None]):
    """Ends with None, or with the Failure that makes going on useless."""

    TITLE = "Helios"
    CSS = ".stale { opacity: 50%; }"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("question_mark", "keys", "keys", key_display="?"),
    ]

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed
        self._snapshot: Snapshot | None = None
        self._status = StatusLine(str(feed.place))
        self._devices = DevicesPanel()
        self._replicas = ReplicaTable()
        self._queue = QueueTable()
        self._events = EventLog()

    def compose(self) -> ComposeResult:
        yield self._status
        yield self._devices
        yield self._replicas
        yield self._queue
        yield self._events
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self._replicas.focus()
        self.run_worker(self._follow(), exclusive=True)

    async def _follow(self) -> None:
        try:
            async for news in self._feed.news():
                self._take(news)
        except Failure as failure:
            self.exit(failure, return_code=int(failure.exit_code))

    def _take(self, news: News) -> None:
        match news:
            case Snapshot():
                self._show(news)
            case EventView():
                self._events.tell(news)
            case Connected(away_s):
                self._set_stale(False)
                if away_s is not None:
                    self._events.remark(f"connected again after {format_seconds(away_s)}")
            case Lost():
                self._status.lost(news)
                self._set_stale(True)
            case _:
                assert_never(news)

    def _show(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._status.show(snapshot.node)
        self._devices.show(snapshot.devices)
        self._replicas.show(snapshot.replicas)
        self._queue.show(snapshot.queue)
        if isinstance(self.screen, ReplicaScreen):
            shown = self.screen.replica
            self.screen.show(next((replica for replica in snapshot.replicas if replica.id == shown), None))

    def _set_stale(self, stale: bool) -> None:
        """What is shown was true when the connection broke; it stays, but pale."""
        for panel in (self._devices, self._replicas, self._queue):
            panel.set_class(stale, "stale")

    def on_replica_table_chosen(self, message: ReplicaTable.Chosen) -> None:
        replicas = self._snapshot.replicas if self._snapshot else []
        for replica in replicas:
            if replica.id == message.replica:
                self.push_screen(ReplicaScreen(replica))

    def action_keys(self) -> None:
        self.push_screen(KeysScreen())


async def watch(feed: Feed) -> Exit:
    """Show the screen until the person leaves. Raises Failure when the daemon refuses this client."""
    failure = await HeliosTop(feed).run_async()
    if failure is not None:
        raise failure
    return Exit.OK
