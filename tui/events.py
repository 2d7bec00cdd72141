"""The panel of what happened and why."""

from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import RichLog

from heliosd.wire import EventView
from tui.rows import event_line


class EventLog(RichLog):
    """Newest last; it follows unless the person scrolled up."""

    DEFAULT_CSS = "EventLog { height: 1fr; min-height: 4; border: round $primary; padding: 0 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "down"),
        Binding("k", "scroll_up", "up"),
    ]

    def __init__(self) -> None:
        super().__init__(max_lines=2000, wrap=True, min_width=20, auto_scroll=False)
        self.border_title = "events"

    def tell(self, event: EventView) -> None:
        self._add(event_line(event))

    def remark(self, text: str) -> None:
        """A line of the screen's own, such as that the daemon was away."""
        self._add(Text(f"-- {text} --", "italic yellow"))

    def on_mount(self) -> None:
        self.anchor()

    def _add(self, line: Text) -> None:
        self.write(line)
