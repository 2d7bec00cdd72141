"""The screen of requests that wait."""

from typing import Any, ClassVar

from rich.text import Text

from heliosctl.client import quoted
from heliosctl.explain_words import story
from heliosd.wire import Explanation, QueueView
from tui.ask import Ask
from tui.columns import Cell, Column, Shown
from tui.history import History, sparkline
from tui.now import Now
from tui.palette import ORANGE, SKY
from tui.table import Table
from tui.view import View
from tui.words import clock, ticking

_PRIORITIES = {"high": 0, "normal": 1, "low": 2}


def _eta(entry: QueueView, shown: Shown) -> str:
    return "?" if entry.eta_s is None else ticking(max(0.0, entry.eta_s - shown.age_s))


COLUMNS: tuple[Column[QueueView], ...] = (
    Column("#", 4, lambda it, _: str(it.position), lambda row: row.get("position"), right=True, rank=3),
    Column("WAITS FOR", 14, lambda it, _: it.model, lambda row: row["model"], grows=True, most=36),
    Column("SINCE", 7, lambda it, shown: ticking(it.waiting_s + shown.age_s),
           lambda row: row["waiting_s"], right=True),
    Column("ETA", 7, _eta, lambda row: row.get("eta_s"), right=True),
    Column("CLASS", 6, lambda it, _: Cell(it.priority, ORANGE if it.priority == "high" else ""),
           lambda row: _PRIORITIES.get(row.get("priority", "normal")), rank=4),
    Column("KEY", 8, lambda it, _: it.key or "-", lambda row: row.get("key"), rank=5),
    Column("BECAUSE", 20, lambda it, _: it.reason, lambda row: row["reason"], grows=True),
    Column("TICKET", 9, lambda it, _: it.ticket, rank=2),
)  # fmt: skip


def queue_table(id: str | None = None) -> Table[QueueView]:
    return Table(
        COLUMNS,
        parse=QueueView.model_validate,
        key=lambda row: row["ticket"],
        words=lambda row: " ".join((row["model"], row["ticket"], row["reason"], row.get("key") or "")),
        empty="nobody waits",
        id=id,
    )


class QueueScreen(View):
    HELP: ClassVar[str] = """\
#        requests that go before it, as it looks now
ETA      until it is served; ? nobody can tell
Enter    all that was said to the request
"""

    def __init__(self) -> None:
        super().__init__("queue", queue_table(), head=True)

    def show(self, now: Now, history: History, age_s: float) -> None:
        self.table.show(now.queue, age_s)
        self._curve(history)

    def tick(self, history: History, age_s: float) -> None:
        super().tick(history, age_s)
        self._curve(history)

    def _curve(self, history: History) -> None:
        if self.head is not None:
            self.head.draw(waiting_curve(history, self.size.width))

    def on_table_chosen(self, message: Table.Chosen) -> None:
        message.stop()
        self.post_message(View.Opened("request", waiting_text(message.row), explain=message.row["ticket"]))


def waiting_curve(history: History, width: int) -> Text:
    values = history.of("waiting")
    text = Text(no_wrap=True)
    text.append(f"waiting, last {len(values)} s ", "bold")
    text.append(sparkline(values, max(0, width - 34)), SKY)
    text.append(f" most {max(values, default=0):.0f}")
    return text


def waiting_text(row: Any) -> Text:
    it = QueueView.model_validate(row)
    text = Text(f"{it.ticket} waits for {it.model}\n", "bold")
    since = f"since {clock(it.since)}, " if it.since is not None else ""
    text.append(f"{since}{it.position} before it, class {it.priority}, key {it.key or '-'}\n\n", "not bold")
    text.append(it.reason, "not bold")
    return text


async def explained(ask: Ask, subject: str) -> Text:
    """The daemon's story of a request, a model or a replica. Raises Failure."""
    told = Explanation.model_validate(await ask.get(f"/helios/v1/explain/{quoted(subject)}"))
    return Text(story(told) or "the daemon tells nothing more about it")
