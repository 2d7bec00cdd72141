"""A table of which only the visible rows are ever read or drawn, and of those only what changed."""

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, Generic

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.columns import GAP, Cell, Column, Laid, Shown, V, fitted, lay_out

_HEADER = Style(bold=True, underline=True)
_HERE = Style(reverse=True)
_HERE_UNFOCUSED = Style(underline=True)


class Table(ScrollView, Generic[V], can_focus=True):
    """One row an item; the cursor stays on its item while others come and go.

    `parse` makes of a row as it came what the columns show; `key` names it; `words` are what a filter looks in.
    """

    DEFAULT_CSS = "Table { height: 1fr; min-height: 3; overflow-x: hidden; scrollbar-size: 1 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "down", show=False),
        Binding("k,up", "move(-1)", "up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "page down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "page up", show=False),
        Binding("g,home", "edge(False)", "first", show=False),
        Binding("G,end", "edge(True)", "last", show=False),
        Binding("enter", "choose", "details"),
        Binding("s", "sort", "sort"),
        Binding("S", "reverse", "reverse", show=False),
    ]

    class Chosen(Message):
        """The person wants to know more about the row under the cursor."""

        def __init__(self, table: "Table[Any]", row: Any) -> None:
            super().__init__()
            self.table = table
            self.row = row

        @property
        def control(self) -> "Table[Any]":
            return self.table

    class Moved(Chosen):
        """The cursor is on another row, or on the same which has changed. None: there is no row."""

    def __init__(
        self,
        columns: Sequence[Column[V]],
        *,
        parse: Callable[[Any], V],
        key: Callable[[Any], Hashable],
        words: Callable[[Any], str],
        empty: str,
        follow: bool = False,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self._columns = columns
        self._parse, self._key, self._words = parse, key, words
        self._empty = empty
        self._follow = follow
        self._given: Sequence[Any] = ()
        self._rows: list[Any] = []
        self._seen_at = time.monotonic()
        self._filter = ""
        self._by: Column[V] | None = None
        self._down = False
        self._cursor = 0
        self._laid: list[Laid[V]] = []
        self._laid_for = -1
        self._drawn: dict[int, tuple[Hashable, list[str | Cell | Text], Strip]] = {}

    # ---- what it is told ---------------------------------------------------------

    def show(self, rows: Sequence[Any], seen_at: float | None = None) -> None:
        """Take the rows of now; `seen_at` is when they were told, on the monotonic clock."""
        self._given = rows
        self._seen_at = time.monotonic() if seen_at is None else seen_at
        self._arrange()

    def look_for(self, text: str) -> None:
        """Show only rows that have all these words."""
        self._filter = text.lower()
        self._arrange()

    def tick(self) -> None:
        """Time has passed: draw what grew."""
        self._redraw()

    @property
    def row(self) -> Any:
        """The one under the cursor as it came; None: there is none."""
        return self._rows[self._cursor] if self._rows else None

    @property
    def rows(self) -> Sequence[Any]:
        """In the order shown."""
        return self._rows

    @property
    def total(self) -> int:
        """How many there are without the filter."""
        return len(self._given)

    def sorted_by(self) -> str:
        """The column's name with an arrow; empty: as they came."""
        return f"{self._by.name}{'▼' if self._down else '▲'}" if self._by else ""

    @property
    def _width(self) -> int:
        """In cells, without the scroll bar."""
        return self.scrollable_content_region.width

    # ---- order ---------------------------------------------------------------------

    def _arrange(self) -> None:
        before = self._key(self.row) if self._rows else None
        at_end = self._follow and self._cursor >= len(self._rows) - 1
        rows = list(self._given)
        for word in self._filter.split():
            rows = [row for row in rows if word in self._words(row).lower()]
        if self._by is not None and self._by.sort is not None:
            of = self._by.sort
            rows.sort(key=lambda row: _sortable(of(row)), reverse=self._down)
        self._rows = rows
        if at_end:
            self._cursor = len(rows) - 1
        elif before is not None:
            keys = self._key
            here = next((at for at, row in enumerate(rows) if keys(row) == before), None)
            self._cursor = self._cursor if here is None else here
        self._cursor = max(0, min(self._cursor, len(rows) - 1))
        self._resize()
        if at_end:
            self._scroll_to_cursor()
        self._redraw()
        self.post_message(self.Moved(self, self.row))

    def _resize(self) -> None:
        size = Size(self.size.width, len(self._rows) + 1)
        if size.height != self.virtual_size.height:
            self.virtual_size = size

    # ---- drawing -------------------------------------------------------------------

    def _redraw(self) -> None:
        """Mark for drawing the visible lines whose text or place in the table has changed."""
        if not self.is_mounted or self.size.width == 0 or not self.is_on_screen:
            return
        changed = []
        for y in range(1, self.size.height):
            at = self.scroll_offset.y + y - 1
            if not self._is_drawn(at):
                changed.append(Region(0, y, self._width, 1))
        if len(changed) > self.size.height // 2:
            self.refresh()
        elif changed:
            self.refresh(*changed)

    @property
    def is_on_screen(self) -> bool:
        return self.display and all(node.display for node in self.ancestors if hasattr(node, "display"))

    def _is_drawn(self, at: int) -> bool:
        known = self._drawn.get(at)
        if at >= len(self._rows):
            self._drawn.pop(at, None)
            return known is None and len(self._rows) > 0
        row = self._rows[at]
        return known is not None and known[0] == self._mark(at, row) and known[1] == self._cells(row)

    def _mark(self, at: int, row: Any) -> Hashable:
        return (self._key(row), at == self._cursor, self.has_focus, self._width)

    def _cells(self, row: Any) -> list["str | Cell | Text"]:
        view = self._parse(row)
        age_s = max(0.0, time.monotonic() - self._seen_at)
        return [laid.column.cell(view, Shown(age_s, laid.width)) for laid in self._laid]

    def render_line(self, y: int) -> Strip:
        width = self._width
        if self._laid_for != width:
            self._laid, self._laid_for = lay_out(self._columns, width), width
        if y == 0:
            return self._header().adjust_cell_length(width, self.rich_style)
        at = self.scroll_offset.y + y - 1
        if at >= len(self._rows):
            words = self._said_when_empty() if not self._rows and y == 1 else ""
            return Strip([Segment(fitted(words, width), Style(italic=True))], width).apply_style(self.rich_style)
        row = self._rows[at]
        cells, mark = self._cells(row), self._mark(at, row)
        known = self._drawn.get(at)
        if known is not None and known[0] == mark and known[1] == cells:
            return known[2]
        strip = self._strip(cells, here=at == self._cursor)
        self._drawn[at] = (mark, cells, strip)
        return strip

    def _said_when_empty(self) -> str:
        return f"nothing has {self._filter!r}; Escape shows all {len(self._given)}" if self._given else self._empty

    def _header(self) -> Strip:
        segments = []
        for laid in self._laid:
            arrow = ("▼" if self._down else "▲") if laid.column is self._by else ""
            name = fitted(laid.column.name + arrow, laid.width, right=laid.column.right)
            segments += [Segment(name, _HEADER), Segment(" " * GAP)]
        return Strip(segments).apply_style(self.rich_style)

    def _strip(self, cells: Sequence["str | Cell | Text"], *, here: bool) -> Strip:
        segments: list[Segment] = []
        for laid, cell in zip(self._laid, cells, strict=True):
            if isinstance(cell, Text):
                cell.truncate(laid.width, overflow="ellipsis", pad=True)
                segments += [each for each in cell.render(self.app.console) if each.text != "\n"]
            else:
                text, style = (cell.text, cell.style) if isinstance(cell, Cell) else (cell, "")
                text = fitted(text, laid.width, right=laid.column.right)
                segments.append(Segment(text, Style.parse(style) if style else None))
            segments.append(Segment(" " * GAP))
        strip = Strip(segments).adjust_cell_length(self._width).apply_style(self.rich_style)
        if here:
            mark = _HERE if self.has_focus else _HERE_UNFOCUSED
            strip = Strip([Segment(text, (style or Style()) + mark, control) for text, style, control in strip])
        return strip

    def _draw_anew(self) -> None:
        self._drawn.clear()
        self._laid_for = -1
        self.refresh()

    # ---- what the person does --------------------------------------------------------

    def on_resize(self, event: events.Resize) -> None:
        self._resize()
        self._draw_anew()
        self._scroll_to_cursor()

    def on_focus(self) -> None:
        self._redraw()

    def on_blur(self) -> None:
        self._redraw()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        top = round(new_value)
        self._drawn = {at: drawn for at, drawn in self._drawn.items() if top <= at < top + self.size.height}

    def go_to(self, at: int) -> None:
        """Put the cursor on that row, or on the nearest there is."""
        self._cursor = max(0, min(at, len(self._rows) - 1))
        self._scroll_to_cursor()
        self._redraw()
        self.post_message(self.Moved(self, self.row))

    def _scroll_to_cursor(self) -> None:
        visible = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False)
        elif self._cursor >= top + visible:
            self.scroll_to(y=self._cursor - visible + 1, animate=False)

    def action_move(self, by: int) -> None:
        self.go_to(self._cursor + by)

    def action_page(self, by: int) -> None:
        self.go_to(self._cursor + by * max(1, self.size.height - 2))

    def action_edge(self, last: bool) -> None:
        self.go_to(len(self._rows) - 1 if last else 0)

    def action_choose(self) -> None:
        if self._rows:
            self.post_message(self.Chosen(self, self.row))

    def action_sort(self) -> None:
        """Sort by the next column that can be sorted by; after the last as they came."""
        able = [None, *(laid.column for laid in self._laid if laid.column.sort)]
        self.sort_by(able[(able.index(self._by) + 1) % len(able)] if self._by in able else None)

    def action_reverse(self) -> None:
        if self._by is not None:
            self._down = not self._down
            self._arrange()
            self._draw_anew()

    def sort_by(self, column: Column[V] | None) -> None:
        self._by, self._down = column, column is not None and column.right
        self._arrange()
        self._draw_anew()

    def sort_named(self, name: str) -> None:
        """By the column that begins so. Raises ValueError that names those there are."""
        able = [column for column in self._columns if column.sort]
        found = [column for column in able if column.name.lower().startswith(name.lower())] if name else []
        if not found:
            names = ", ".join(column.name.lower() for column in able)
            raise ValueError(f"cannot sort by {name or 'nothing'}: the columns are {names}")
        self.sort_by(found[0])

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            for laid in self._laid:
                if laid.at <= event.x < laid.at + laid.width and laid.column.sort:
                    if laid.column is self._by:
                        self.action_reverse()
                    else:
                        self.sort_by(laid.column)
            return
        at = self.scroll_offset.y + event.y - 1
        if at < len(self._rows):
            self.go_to(at)
            if event.chain == 2:
                self.action_choose()


def _sortable(value: Any) -> tuple[bool, Any]:
    """What is not known comes last."""
    return (value is None, value)
