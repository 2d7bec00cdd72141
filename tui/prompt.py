"""The line for filters and commands, and what the screen has to say. It is there only when needed."""

from typing import ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from tui.commands import SCREENS
from tui.deeds import VERBS

Mode = Literal["/", ":"]


class Prompt(Input):
    """`/` narrows the table with each letter; `:` is carried out on Enter."""

    DEFAULT_CSS = "Prompt { height: 1; border: none; padding: 0 1; display: none; background: $panel; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "close")]

    class Typed(Message):
        """The filter as it is now."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Said(Message):
        """A whole command."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Left(Message):
        """The line is closed; the table has the keys again."""

    def __init__(self) -> None:
        super().__init__(compact=True, suggester=SuggestFromList([*SCREENS, *(f"{verb} " for verb in VERBS)]))
        self.mode: Mode = "/"

    def open(self, mode: Mode, text: str = "") -> None:
        self.mode = mode
        self.placeholder = "show only rows with these words" if mode == "/" else "a screen, or what to do"
        self.display = True
        self.value = text
        self.cursor_position = len(text)
        self.screen.set_focus(self)  # at once, where `focus` does it later: letters may be under way already

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.mode == "/" and self.display:
            self.post_message(self.Typed(self.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        text = self.value
        self._close()
        if self.mode == "/":
            self.post_message(self.Typed(text))  # who types fast is ahead of the changes
        elif text.strip():
            self.post_message(self.Said(text))

    def action_leave(self) -> None:
        if self.mode == "/":
            self.post_message(self.Typed(""))
        self._close()

    def _close(self) -> None:
        self.display = False
        self.screen.set_focus(None)
        self.post_message(self.Left())


class Remark(Static):
    """The last thing the screen had to say: what was done, or what went wrong."""

    DEFAULT_CSS = """
    Remark { height: auto; max-height: 3; padding: 0 1; display: none; }
    Remark.wrong { color: $error; text-style: bold; }
    """

    def say(self, text: str, *, wrong: bool = False) -> None:
        self.set_class(wrong, "wrong")
        self.update(f"{'! ' if wrong else ''}{text}".replace("[", r"\["))
        self.display = bool(text)
