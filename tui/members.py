"""The screen of the cluster: the nodes that answer as one."""

from typing import Any, ClassVar

from rich.text import Text

from heliosd.core.units import format_bytes
from heliosd.wire import MemberView
from tui.ask import Ask
from tui.columns import Column
from tui.table import Table
from tui.view import View
from tui.words import state_cell

COLUMNS: tuple[Column[MemberView], ...] = (
    Column("NODE", 14, lambda it, _: it.name, lambda row: row["name"], grows=True, most=40),
    Column("STATE", 9, lambda it, _: state_cell(it.state), lambda row: row["state"]),
    Column("FREE", 9, lambda it, _: "-" if it.free_bytes is None else format_bytes(it.free_bytes),
           lambda row: row.get("free_bytes"), right=True),
    Column("WAIT", 5, lambda it, _: str(it.queue_length), lambda row: row.get("queue_length"), right=True),
    Column("MODELS", 6, lambda it, _: str(len(it.models)), lambda row: len(row.get("models", ())), right=True),
    Column("READY", 5, lambda it, _: str(len(it.ready)), lambda row: len(row.get("ready", ())), right=True),
    Column("ADDRESS", 20, lambda it, _: it.address or "-", rank=1),
    Column("VERSION", 8, lambda it, _: it.version or "-", lambda row: row.get("version"), rank=2),
    Column("API", 28, lambda it, _: it.api_url or "-", rank=3, grows=True, most=50),
)  # fmt: skip


class ClusterView(View):
    HELP: ClassVar[str] = """\
FREE     of its freest device, as it last told
WAIT     requests that wait there, up to the next power of two
Enter    the models it holds
"""

    def __init__(self) -> None:
        table: Table[MemberView] = Table(
            COLUMNS,
            parse=MemberView.model_validate,
            key=lambda row: row["name"],
            words=lambda row: " ".join((row["name"], row["state"], row["address"], *row.get("models", []))),
            empty="no members",
        )
        super().__init__("cluster", table)

    async def fetch(self, ask: Ask) -> None:
        members: list[Any] = (await ask.get("/helios/v1/cluster"))["members"]
        self.table.show(members)

    def on_table_chosen(self, message: Table.Chosen) -> None:
        message.stop()
        self.post_message(View.Opened("node", member_text(MemberView.model_validate(message.row))))


def member_text(it: MemberView) -> Text:
    text = Text(f"{it.name} is {it.state} at {it.address or '-'}\n", "bold")
    ready = set(it.ready)
    lines = [f"{'●' if model in ready else ' '} {model}" for model in it.models]
    text.append("\n".join(lines) or "it holds no models", "not bold")
    return text
