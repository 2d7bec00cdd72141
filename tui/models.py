"""The screen of models and of the tiers that hold their files."""

from collections.abc import Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from heliosd.core.units import format_bytes
from heliosd.wire import TierList
from tui.ask import Ask
from tui.bars import apportion
from tui.columns import Cell, Column
from tui.history import History
from tui.now import Now, Raw
from tui.palette import BLUE, GREY, PURPLE
from tui.table import Table
from tui.view import View
from tui.words import state_cell

_BEST_FIRST = ("ready", "waking", "starting", "fetching", "planned", "draining", "sleeping", "asleep", "failed")
_RANK = {state: place for place, state in enumerate(_BEST_FIRST)}

Row = tuple[Raw, str]
"""A ModelView as it came, and its state as the feed tells it."""


def states_of(now: Now) -> dict[str, str]:
    """Of each model that has replicas, the best of their states."""
    found: dict[str, str] = {}
    for row in now.replicas:
        model, state = row["model"], row["state"]
        if model not in found or _RANK.get(state, 99) < _RANK.get(found[model], 99):
            found[model] = state
    return found


def with_states(models: list[Raw], states: Mapping[str, str]) -> list[Row]:
    """Adapters are served by their base's replica."""
    return [(row, states.get(row.get("base") or row["ref"], "peer" if row.get("peer") else "stored")) for row in models]


def _parameters(row: Row) -> str:
    count = row[0].get("parameters")
    if count is None:
        return "-"
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.0f}M"


def _where(row: Row) -> str:
    return row[0].get("tier") or (f"peer {row[0]['peer']}" if row[0].get("peer") else "-")


COLUMNS: tuple[Column[Row], ...] = (
    Column("MODEL", 20, lambda it, _: it[0]["ref"], lambda row: row[0]["ref"], grows=True, most=60),
    Column("STATE", 10, lambda it, _: state_cell(it[1]), lambda row: _RANK.get(row[1], 99)),
    Column("SIZE", 9, lambda it, _: format_bytes(it[0]["size_bytes"]), lambda row: row[0]["size_bytes"], right=True),
    Column("TIER", 9, lambda it, _: _where(it), _where),
    Column("PIN", 3, lambda it, _: Cell("pin", PURPLE) if it[0].get("pinned") else "", rank=3),
    Column("PARAMS", 7, lambda it, _: _parameters(it), lambda row: row[0].get("parameters"), right=True, rank=2),
    Column("CONTEXT", 8, lambda it, _: str(it[0].get("max_model_len") or "-"),
           lambda row: row[0].get("max_model_len"), right=True, rank=4),
    Column("ALIASES", 12, lambda it, _: ", ".join(it[0].get("aliases", [])) or "-", grows=True, rank=5, most=30),
    Column("ARCHITECTURE", 22, lambda it, _: it[0].get("architecture") or "-",
           lambda row: row[0].get("architecture"), rank=6),
    Column("REVISION", 12, lambda it, _: it[0]["revision"][:12] or "-", rank=7),
    Column("SOURCE", 24, lambda it, _: it[0]["source"], rank=8, grows=True, most=60),
)  # fmt: skip


class ModelsView(View):
    HELP: ClassVar[str] = """\
TIER     where the files are: host (RAM), nvme (the store), disk (a slower volume), a peer
Enter    what it would take here, and what is known about it
"""
    ABOUT: ClassVar[frozenset[str]] = frozenset({"model", "pin", "tier", "share", "gc", "adapter"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "want('load')", "load"),
        Binding("z", "want('sleep')", "sleep"),
        Binding("w", "want('wake')", "wake"),
        Binding("x", "want('stop')", "stop"),
        Binding("p", "want('pin')", "pin"),
    ]

    def __init__(self) -> None:
        table: Table[Row] = Table(
            COLUMNS,
            parse=lambda row: row,
            key=lambda row: row[0]["ref"],
            words=lambda row: " ".join((row[0]["ref"], row[1], _where(row), *row[0].get("aliases", []))),
            empty="no models: `heliosctl pull org/name` brings one",
        )
        super().__init__("models", table, head=True)
        self._models: list[Raw] = []
        self._states: dict[str, str] = {}

    def show(self, now: Now, history: History, age_s: float) -> None:
        states = states_of(now)
        if states != self._states:
            self._states = states
            self._arrange()

    async def fetch(self, ask: Ask) -> None:
        models: list[Any] = (await ask.get("/helios/v1/models"))["models"]
        pins = {row["model"] for row in (await ask.get("/helios/v1/pins"))["pins"]}
        self._models = [{**row, "pinned": row["ref"] in pins} for row in models]
        tiers = TierList.model_validate(await ask.get("/helios/v1/tiers"))
        if self.head is not None:
            self.head.draw(tier_lines(tiers, max(40, self.size.width)))
        self._arrange()

    def _arrange(self) -> None:
        self.table.show(with_states(self._models, self._states))

    def on_table_chosen(self, message: Table.Chosen) -> None:
        message.stop()
        ref = message.row[0]["ref"]
        self.post_message(View.Opened("model", model_text(message.row), explain=ref))

    def action_want(self, verb: str) -> None:
        if self.table.row is None:
            return
        raw, _ = self.table.row
        if verb == "pin" and raw.get("pinned"):
            verb = "unpin"
        self.post_message(View.Wanted(verb, raw["ref"], raw["ref"]))  # type: ignore[arg-type]


def tier_lines(found: TierList, width: int) -> Text:
    """A bar for each tier: what is held of what may be."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for tier in found.tiers:
        cells = max(8, min(60, width - 54))
        free = max(0, (tier.budget_bytes or 0) - tier.used_bytes)
        full, rest = apportion((tier.used_bytes, free), cells) if tier.budget_bytes is not None else (0, 0)
        text.append(f"{tier.tier:<5}")
        text.append("█" * full, BLUE)
        text.append("·" * rest, GREY)
        text.append(" " * (cells - full - rest))
        budget = "" if tier.budget_bytes is None else f" of {format_bytes(tier.budget_bytes)}"
        used = f"{format_bytes(tier.used_bytes)}{budget}"
        text.append(f" {used:<22} {len(tier.models)} models {tier.note}".rstrip() + "\n")
    if found.moving:
        text.append(f"moving {found.moving}\n")
    text.rstrip()
    return text


def model_text(row: Row) -> Text:
    raw, state = row
    text = Text(f"{raw['ref']}\n", "bold")
    aliases = f", also {', '.join(raw['aliases'])}" if raw.get("aliases") else ""
    text.append(f"{state} · {format_bytes(raw['size_bytes'])} in {_where(row)} · {raw['source']}{aliases}", "not bold")
    return text
