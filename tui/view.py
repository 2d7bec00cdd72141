"""What every screen is: a table with what stands above and below it, fed only while it is looked at."""

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message

from tui.ask import Ask
from tui.deeds import Verb
from tui.history import History
from tui.lines import Lines
from tui.now import Now
from tui.table import Table


class View(Vertical):
    """One screen. `head` and `foot` are lines above and below the table; a foot tells of the row under the cursor."""

    DEFAULT_CSS = """
    View > .head { height: auto; max-height: 40%; }
    View > .foot { height: auto; max-height: 60%; border-top: solid $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = []
    HELP: ClassVar[str] = ""
    """What its columns and keys mean, for `?`."""
    ABOUT: ClassVar[frozenset[str]] = frozenset()
    """Kinds of journal lines after which `fetch` may find something new."""

    class Wanted(Message):
        """The person wants something done; nothing is done before it is confirmed."""

        def __init__(self, verb: Verb, subject: str, about: str, concerned: Sequence[str] | None = None) -> None:
            super().__init__()
            self.verb = verb
            self.subject = subject
            self.about = about
            self.concerned = [subject] if concerned is None else concerned
            """What the daemon can say the effect of: of a device that is drained, its replicas."""

    class Opened(Message):
        """The person wants to read more about this."""

        def __init__(self, title: str, text: Text, *, key: str | None = None, explain: str | None = None) -> None:
            super().__init__()
            self.title = title
            self.text = text
            self.key = key
            """Set where the text goes on changing: `View.detail` gives what it is now."""
            self.explain = explain
            """Set where the daemon has a story about it."""

    def __init__(self, name: str, table: Table[Any], *, head: bool = False, foot: bool = False) -> None:
        super().__init__(id=name)
        self.table = table
        self.head = Lines("head") if head else None
        self.foot = Lines("foot") if foot else None

    def compose(self) -> ComposeResult:
        if self.head is not None:
            yield self.head
        yield self.table
        if self.foot is not None:
            yield self.foot

    def show(self, now: Now, history: History, age_s: float) -> None:
        """Draw what the feed told `age_s` ago."""

    async def fetch(self, ask: Ask) -> None:
        """Ask for what the feed does not tell. Raises Failure."""

    def detail(self, key: str) -> Text | None:
        """What an opened text is by now; None: it is gone, or does not change."""
        return None

    def tick(self, history: History, age_s: float) -> None:
        """A second has passed; what is shown was told `age_s` ago."""
        self.table.tick(age_s)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In a screen that only watches there are no deeds, and the footer shows none."""
        read_only: bool = getattr(self.app, "read_only", False)
        return not (action == "want" and read_only)
