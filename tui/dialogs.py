"""What lies over a screen when asked for: details, help, and the question before anything is done."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from tui.bars import legend

_KEYS = """\
1 to 9    the screens; so does a click on their names
:         a command: a screen's name, `load org/name`, `sleep r1`,
          `wake`, `stop`, `pin`, `unpin`, `drain gpu0`, `sort size`, `q`
/         only rows with these words; Escape shows all again
s S       sort by the next column; turn the order round; so does a
          click on a column's name
j k g G   down, up, first, last, as arrows, Home and End; or the wheel
Enter     all about the row under the cursor; so does a double click
Escape    close what was opened
r         ask again for what the daemon does not tell by itself
?         this page
q         leave

"""


class Overlay(ModalScreen[None]):
    """A box in the middle that any of the usual keys closes."""

    DEFAULT_CSS = """
    Overlay { align: center middle; }
    Overlay > VerticalScroll {
        width: 100; max-width: 96%; height: auto; max-height: 92%;
        border: round $accent; background: $surface; padding: 0 1;
    }
    Overlay Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "dismiss(None)", "close", key_display="esc"),
        Binding("j", "down", "down", show=False),
        Binding("k", "up", "up", show=False),
    ]

    def __init__(self, title: str, text: Text, key: str | None = None) -> None:
        super().__init__()
        self._title = title
        self._first, self._story = text, Text()
        self._body = Static(text)
        self.key = key
        """Of what is shown, where that goes on changing."""

    def compose(self) -> ComposeResult:
        box = VerticalScroll(self._body)
        box.border_title = self._title
        yield box

    def show(self, text: Text | None) -> None:
        """Draw anew; None: it is gone, and what was last known stays."""
        if text is None:
            self.query_one(VerticalScroll).border_title = f"{self._title} (gone)"
        else:
            self._first = text
            self._draw()

    def add(self, story: Text) -> None:
        """What the daemon tells besides."""
        self._story = story
        self._draw()

    def _draw(self) -> None:
        text = self._first.copy()
        if self._story:
            text.append("\n\n").append_text(self._story)
        self._body.update(text)

    def on_click(self, event: "object") -> None:
        if getattr(event, "widget", None) is self:
            self.dismiss(None)

    def action_down(self) -> None:
        self.query_one(VerticalScroll).scroll_down()

    def action_up(self) -> None:
        self.query_one(VerticalScroll).scroll_up()


def help_text(screen: str, own: str) -> Text:
    """The keys of all screens, and what is particular about this one."""
    text = Text(_KEYS).append(f"{screen}\n", "bold").append(own or "\n", "not bold").append("\n")
    return text.append_text(legend())


class Confirm(ModalScreen[bool]):
    """Asks before anything is done, and says what would come of it. Only `y` or a click says yes."""

    DEFAULT_CSS = """
    Confirm { align: center middle; }
    Confirm > VerticalScroll {
        width: 76; max-width: 96%; height: auto; max-height: 92%;
        border: round $warning; background: $surface; padding: 0 1;
    }
    Confirm Static { height: auto; }
    Confirm Horizontal { height: 1; margin-top: 1; }
    Confirm Button { margin-right: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "yes"),
        Binding("n,escape,q", "dismiss(False)", "no", key_display="n"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question
        self._effects = Static("asking what would come of it …")

    def compose(self) -> ComposeResult:
        box = VerticalScroll(
            self._effects, Horizontal(Button("y yes", id="yes", compact=True), Button("n no", id="no", compact=True))
        )
        box.border_title = self._question
        box.can_focus = False
        yield box

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def told(self, lines: list[str]) -> None:
        self._effects.update(Text("\n".join(lines)))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.id == "yes")
