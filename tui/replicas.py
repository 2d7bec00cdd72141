"""The tables of replicas and of waiting requests."""

import time
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable

from heliosd.wire import QueueView, ReplicaView
from tui.rows import QUEUE_COLUMNS, REPLICA_COLUMNS, queue_row, replica_row


class ReplicaTable(DataTable[object]):
    """One row a replica; the cursor stays on its replica while others come and go."""

    DEFAULT_CSS = "ReplicaTable { height: 1fr; min-height: 4; border: round $primary; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "down"),
        Binding("k", "cursor_up", "up"),
        Binding("enter", "select_cursor", "details"),
    ]

    class Chosen(Message):
        """The person wants to know more about this replica."""

        def __init__(self, replica: str) -> None:
            super().__init__()
            self.replica = replica

    def __init__(self) -> None:
        super().__init__(cursor_type="row", zebra_stripes=True)
        self.border_title = "replicas"
        self._replicas: list[ReplicaView] = []
        self._seen_at = 0.0

    def on_mount(self) -> None:
        for column in REPLICA_COLUMNS:
            self.add_column(column, key=column)
        self.set_interval(1.0, self._draw)

    def show(self, replicas: list[ReplicaView]) -> None:
        self._replicas, self._seen_at = replicas, time.monotonic()
        self._draw()

    def _draw(self) -> None:
        age_s = time.monotonic() - self._seen_at
        wanted = {replica.id: replica_row(replica, age_s) for replica in self._replicas}
        for key in [row.value for row in self.rows]:
            if key is not None and key not in wanted:
                self.remove_row(key)
        present = {row.value for row in self.rows}
        for key, cells in wanted.items():
            if key not in present:
                self.add_row(*cells, key=key)
                continue
            for column, cell in zip(REPLICA_COLUMNS, cells, strict=True):
                if self.get_cell(key, column) != cell:
                    self.update_cell(key, column, cell, update_width=True)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if event.row_key.value is not None:
            self.post_message(self.Chosen(event.row_key.value))


class QueueTable(DataTable[str]):
    """Requests that wait, with the reason. Not there while nobody waits."""

    DEFAULT_CSS = "QueueTable { height: auto; max-height: 7; border: round $warning; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "down"),
        Binding("k", "scroll_up", "up"),
    ]

    def __init__(self) -> None:
        super().__init__(cursor_type="none")
        self._queue: list[QueueView] = []
        self._seen_at = 0.0

    def on_mount(self) -> None:
        self.add_columns(*QUEUE_COLUMNS)
        self.display = False
        self.set_interval(1.0, self._draw)

    def show(self, queue: list[QueueView]) -> None:
        self._queue, self._seen_at = queue, time.monotonic()
        self.display = bool(queue)
        self.border_title = f"queue: {len(queue)} waiting"
        self._draw()

    def _draw(self) -> None:
        age_s = time.monotonic() - self._seen_at
        self.clear()
        self.add_rows([queue_row(entry, age_s) for entry in self._queue])
