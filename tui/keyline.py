"""The last line: the keys that do something now. One widget, where one for each would be drawn with every change."""

from rich.text import Text
from textual import events
from textual.screen import Screen
from textual.widgets import Static


class KeyLine(Static):
    """Follows the screen's bindings; a click is the key's."""

    DEFAULT_CSS = "KeyLine { height: 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }"

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._spans: list[tuple[int, int, str]] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def on_unmount(self) -> None:
        self.screen.bindings_updated_signal.unsubscribe(self)

    @property
    def ready(self) -> bool:
        """Whether there is anything on it yet."""
        return bool(self._spans)

    def _changed(self, screen: Screen[object]) -> None:
        text = Text(no_wrap=True)
        spans = []
        for active in screen.active_bindings.values():
            if active.binding.show:
                begin = len(text)
                text.append(self.app.get_key_display(active.binding), "bold")
                text.append(f" {active.binding.description}")
                spans.append((begin, len(text), active.binding.key))
                text.append(" ")
        if spans and spans != self._spans:
            self._spans = spans
            self.update(text, layout=False)

    def on_click(self, event: events.Click) -> None:
        for begin, end, key in self._spans:
            if begin <= event.x < end:
                self.app.simulate_key(key)
