"""The screen of API keys."""

from typing import Any, ClassVar

from heliosd.wire import KeyView
from tui.ask import Ask
from tui.columns import Cell, Column
from tui.palette import ORANGE
from tui.table import Table
from tui.view import View
from tui.words import day

COLUMNS: tuple[Column[KeyView], ...] = (
    Column("NAME", 16, lambda it, _: it.name, lambda row: row["name"], grows=True, most=50),
    Column("ADMIN", 5, lambda it, _: Cell("yes", ORANGE) if it.admin else "no", lambda row: not row["admin"]),
    Column("CLASS", 8, lambda it, _: it.priority, lambda row: row.get("priority")),
    Column("SHARE", 7, lambda it, _: f"{it.share:g}", lambda row: row.get("share"), right=True),
    Column("MADE", 16, lambda it, _: day(it.created_at), lambda row: row["created_at"]),
    Column("ID", 14, lambda it, _: it.id, lambda row: row["id"], rank=2),
)


class KeysView(View):
    HELP: ClassVar[str] = """\
SHARE    of the fair share, beside other keys that wait
Keys are made and changed with `heliosctl keys`: a secret is shown once, and not on a screen.
"""
    ABOUT: ClassVar[frozenset[str]] = frozenset({"key"})

    def __init__(self) -> None:
        table: Table[KeyView] = Table(
            COLUMNS,
            parse=KeyView.model_validate,
            key=lambda row: row["name"],
            words=lambda row: f"{row['name']} {row['id']} {row.get('priority')}",
            empty="no keys: over TCP anybody may ask for inference; `heliosctl keys add NAME` makes one",
        )
        super().__init__("keys", table)

    async def fetch(self, ask: Ask) -> None:
        keys: list[Any] = (await ask.get("/helios/v1/keys"))["keys"]
        self.table.show(keys)
