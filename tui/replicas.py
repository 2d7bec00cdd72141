"""The screen of replicas."""

from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from heliosd.core.units import format_seconds
from heliosd.wire import ReplicaView
from tui.columns import Cell, Column, Shown
from tui.details import details
from tui.history import History
from tui.now import Now
from tui.table import Table
from tui.view import View
from tui.words import memory, state_cell, ticking


def _idle(replica: ReplicaView) -> bool:
    return replica.state == "ready" and replica.leases == 0


def _stops_in(replica: ReplicaView, shown: Shown) -> str:
    if not _idle(replica):
        return "-"
    if replica.pinned or replica.keep_alive_s is None:
        return "never"
    return ticking(max(0.0, replica.keep_alive_s - replica.idle_s - shown.age_s))


def _state(replica: ReplicaView) -> Cell:
    more = f" {replica.sleep_level}" if replica.state == "asleep" and replica.sleep_level else ""
    return state_cell(replica.state, more + (" pin" if replica.pinned else ""))


COLUMNS: tuple[Column[ReplicaView], ...] = (
    Column("MODEL", 22, lambda it, _: it.model, lambda row: row["model"], grows=True, most=44),
    Column("STATE", 12, lambda it, _: _state(it), lambda row: row["state"]),
    Column("LEASES", 7, lambda it, _: f"{it.leases}/{it.limit}" if it.limit else str(it.leases),
           lambda row: row["leases"], right=True),
    Column("KV", 4, lambda it, _: f"{it.kv_used_ratio:.0%}", lambda row: row.get("kv_used_ratio"), right=True, rank=2),
    Column("MEMORY", 9, lambda it, _: memory(it), lambda row: row["predicted"]["total_bytes"], right=True),
    Column("IDLE", 7, lambda it, shown: ticking(it.idle_s + shown.age_s) if _idle(it) else "-",
           lambda row: row["idle_s"], right=True, rank=3),
    Column("STOPS IN", 8, _stops_in, right=True, rank=4),
    Column("DEVICES", 8, lambda it, _: ",".join(it.devices), lambda row: row["devices"], grows=True, rank=1, most=40),
    Column("REPLICA", 8, lambda it, _: it.id, lambda row: row["id"]),
    Column("CONTEXT", 8, lambda it, _: str(it.max_model_len or "-"), right=True, rank=6),
    Column("STARTED IN", 10, lambda it, _: format_seconds(sum(it.phases.values())) if it.phases else "-",
           right=True, rank=7),
    Column("PIDS", 9, lambda it, _: ",".join(map(str, it.pids)) or "-", rank=8),
)  # fmt: skip


def replica_table(id: str | None = None) -> Table[ReplicaView]:
    return Table(
        COLUMNS,
        parse=ReplicaView.model_validate,
        key=lambda row: row["id"],
        words=lambda row: " ".join((row["model"], row["id"], row["state"], *row["devices"])),
        empty="no replicas: a request starts one, or `:load MODEL`",
        id=id,
    )


class ReplicasView(View):
    HELP: ClassVar[str] = """\
LEASES    requests it works on, of how many it may now
KV        of its KV cache, what is in use
MEMORY    measured, on each device; with ~ it is still the prediction
STOPS IN  counts down while nobody uses the replica
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("z", "want('sleep')", "sleep"),
        Binding("w", "want('wake')", "wake"),
        Binding("x", "want('stop')", "stop"),
        Binding("p", "want('pin')", "pin"),
    ]

    def __init__(self) -> None:
        super().__init__("replicas", replica_table())
        self._now: Now | None = None

    def show(self, now: Now, history: History, age_s: float) -> None:
        self._now = now
        self.table.show(now.replicas, age_s)

    def on_table_chosen(self, message: Table.Chosen) -> None:
        message.stop()
        self.post_message(replica_opened(message.row))

    def detail(self, key: str) -> Text | None:
        return replica_detail(self._now, key)

    def action_want(self, verb: str) -> None:
        if self.table.row is not None:
            self.post_message(replica_wanted(verb, self.table.row))


def replica_opened(row: Any) -> View.Opened:
    return View.Opened("replica", details(ReplicaView.model_validate(row)), key=row["id"])


def replica_detail(now: Now | None, key: str) -> Text | None:
    rows = [row for row in now.replicas if row["id"] == key] if now else []
    return details(ReplicaView.model_validate(rows[0])) if rows else None


def replica_wanted(verb: str, row: Any) -> View.Wanted:
    """Sleep and stop are for the replica; a wake and a pin are for its model."""
    if verb == "pin":
        verb = "unpin" if row.get("pinned") else "pin"
    if verb in ("sleep", "stop"):
        return View.Wanted("sleep" if verb == "sleep" else "stop", row["id"], f"{row['id']} of {row['model']}")
    names = {"wake": "wake", "pin": "pin", "unpin": "unpin"}
    return View.Wanted(names[verb], row["model"], row["model"])  # type: ignore[arg-type]
