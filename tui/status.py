"""The line at the top: whose news these are, or why there are none."""

import time

from textual.widgets import Static

from heliosd.wire import NodeView
from tui.feed import Lost
from tui.rows import lost_line, node_line


class StatusLine(Static):
    DEFAULT_CSS = "StatusLine { height: auto; max-height: 4; padding: 0 1; background: $panel; }"

    def __init__(self, place: str) -> None:
        super().__init__(f"connecting to {place} …")
        self._place = place
        self._node: NodeView | None = None
        self._seen_at = 0.0

    def on_mount(self) -> None:
        self.set_interval(1.0, self._draw)

    def show(self, node: NodeView) -> None:
        self._node, self._seen_at = node, time.monotonic()
        self._draw()

    def lost(self, lost: Lost) -> None:
        self._node = None
        self.update(lost_line(lost.reason, self._place, lost.retry_s))

    def _draw(self) -> None:
        if self._node is not None:
            self.update(node_line(self._node, self._place, time.monotonic() - self._seen_at))
