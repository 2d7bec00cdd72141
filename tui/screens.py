"""What lies over the one screen when asked for: details of a replica, and the keys."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from heliosd.wire import ReplicaView
from tui.bars import legend
from tui.details import details

_KEYS = """\
q        leave
?        this page
j k      down and up, as the arrows do
Tab      to the next panel
Enter    details of the replica under the cursor
Escape   close what was opened

MEMORY is measured; with ~ it is still the prediction.
STOPS IN counts down while nobody uses the replica.

"""


class _Overlay(ModalScreen[None]):
    """A box in the middle that any of the usual keys closes."""

    DEFAULT_CSS = """
    _Overlay { align: center middle; }
    _Overlay > VerticalScroll {
        width: 72; max-width: 95%; height: auto; max-height: 90%;
        border: round $accent; background: $surface; padding: 0 1;
    }
    _Overlay Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "dismiss(None)", "close"),
        Binding("j", "down", "down", show=False),
        Binding("k", "up", "up", show=False),
    ]

    def __init__(self, title: str, text: Text) -> None:
        super().__init__()
        self._title = title
        self._body = Static(text)

    def compose(self) -> ComposeResult:
        box = VerticalScroll(self._body)
        box.border_title = self._title
        yield box

    def action_down(self) -> None:
        self.query_one(VerticalScroll).scroll_down()

    def action_up(self) -> None:
        self.query_one(VerticalScroll).scroll_up()


class KeysScreen(_Overlay):
    """What the keys do and the glyphs mean."""

    def __init__(self) -> None:
        super().__init__("keys", Text(_KEYS).append_text(legend()))


class ReplicaScreen(_Overlay):
    """One replica, live."""

    def __init__(self, replica: ReplicaView) -> None:
        super().__init__("replica", details(replica))
        self.replica = replica.id

    def show(self, replica: ReplicaView | None) -> None:
        """Draw anew; None: it is gone, and what was last known stays."""
        if replica is None:
            self.query_one(VerticalScroll).border_title = "replica (gone)"
        else:
            self._body.update(details(replica))
