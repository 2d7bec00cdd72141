"""One frame as text, for `--once`, scripts and bug reports. Pure but for the final print."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from heliosd.wire import EventView, Snapshot
from tui.bars import devices_text
from tui.rows import QUEUE_COLUMNS, REPLICA_COLUMNS, event_line, node_line, queue_row, replica_row

EVENTS_SHOWN = 10


def frame(snapshot: Snapshot, events: Sequence[EventView], place: str, width: int) -> Group:
    """The same parts as the screen has, one below the other."""
    parts: list[RenderableType] = [
        node_line(snapshot.node, place, 0.0),
        Text(),
        devices_text(snapshot.devices, width, detailed=True),
        Text(),
        _table(REPLICA_COLUMNS, [replica_row(replica, 0.0) for replica in snapshot.replicas]),
    ]
    if snapshot.queue:
        parts += [Text(), _table(QUEUE_COLUMNS, [queue_row(entry, 0.0) for entry in snapshot.queue])]
    if events:
        parts += [Text(), *(event_line(event) for event in events[-EVENTS_SHOWN:])]
    return Group(*parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    return table


def print_frame(snapshot: Snapshot, events: Sequence[EventView], place: str) -> None:
    """Print at the terminal's width; without colours where stdout is no terminal."""
    console = Console(highlight=False)
    console.print(frame(snapshot, events, place, console.width))
