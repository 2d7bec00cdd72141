"""A table of which only the visible rows are ever read or drawn, and of those only what changed."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Generic

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from tui.columns import GAP, Cell, Column, Drawn, Laid, Shown, V, fitted, lay_out

_HEADER = Style(bold=True, underline=True)
_HERE = (Style(), Style(underline=True), Style(reverse=True))
"""Of any row, of the one with the cursor, and of that while the table has the keys."""


@dataclass(slots=True)
class _Line:
    """A visible row as it was last drawn."""

    here: int
    cells: list[Drawn]
    strip: Strip | None = None


@lru_cache(256)
def _styled(base: Style, style: str) -> Style:
    return base + Style.parse(style) if style else base


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
        """The cursor is on another row. None: there is no row."""

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
        self._age_s = 0.0
        self._filter = ""
        self._by: Column[V] | None = None
        self._down = False
        self._cursor = 0
        self._laid: list[Laid[V]] = []
        self._laid_for = -1
        self._base = Style()
        self._drawn: dict[int, _Line] = {}
        """By row, those that are visible."""

    # ---- what it is told ---------------------------------------------------------

    def show(self, rows: Sequence[Any], age_s: float = 0.0) -> None:
        """Take the rows of now, which were told so long ago."""
        self._given, self._age_s = rows, age_s
        self._arrange()

    def look_for(self, text: str) -> None:
        """Show only rows that have all these words."""
        self._filter = text.lower()
        self._arrange()

    def tick(self, age_s: float) -> None:
        """The rows were told so long ago by now: draw what grew."""
        self._age_s = age_s
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
            if not (self._cursor < len(rows) and keys(rows[self._cursor]) == before):
                here = next((at for at, row in enumerate(rows) if keys(row) == before), None)
                self._cursor = self._cursor if here is None else here
        self._cursor = max(0, min(self._cursor, len(rows) - 1))
        self._resize()
        if at_end:
            self._scroll_to_cursor()
        self._redraw()
        if before != (self._key(self.row) if rows else None):
            self.post_message(self.Moved(self, self.row))

    def _resize(self) -> None:
        size = Size(self.size.width, len(self._rows) + 1)
        if size.height != self.virtual_size.height:
            self.set_reactive(Widget.virtual_size, size)  # setting it plainly would lay out the whole screen anew
            self._scroll_update(size)

    # ---- drawing -------------------------------------------------------------------

    def _redraw(self) -> None:
        """Mark for drawing the visible lines whose text or place in the table has changed."""
        width, height = self._width, self.size.height
        if not self.is_mounted or width == 0 or not self._is_shown():
            return
        self._lay_out(width)
        if self._base != (base := self.rich_style):
            self._base = base
            self._drawn.clear()
        top, focused = self.scroll_offset.y, self.has_focus
        changed = []
        for y in range(1, height):
            at = top + y - 1
            if at >= len(self._rows):
                if self._drawn.pop(at, None) is not None or not self._rows:
                    changed.append(Region(0, y, width, 1))
                continue
            known, line = self._drawn.get(at), self._line(at, focused)
            if known is None or known.here != line.here or known.cells != line.cells:
                self._drawn[at] = line
                changed.append(Region(0, y, width, 1))
        if len(changed) == height - 1:
            self.refresh(Region(0, 1, width, height - 1))
        elif changed:
            self.refresh(*changed)

    def _is_shown(self) -> bool:
        return self.display and all(node.display for node in self.ancestors if isinstance(node, Widget))

    def _line(self, at: int, focused: bool) -> "_Line":
        here = 0 if at != self._cursor else 2 if focused else 1
        return _Line(here, self._cells(self._rows[at]))

    def _cells(self, row: Any) -> list[Drawn]:
        view = self._parse(row)
        return [laid.column.cell(view, Shown(self._age_s, laid.width)) for laid in self._laid]

    def _lay_out(self, width: int) -> None:
        if self._laid_for != width:
            self._laid, self._laid_for = lay_out(self._columns, width), width
            self._drawn.clear()

    def render_line(self, y: int) -> Strip:
        width = self._width
        self._lay_out(width)
        if y == 0:
            return self._header().adjust_cell_length(width, self.rich_style)
        at = self.scroll_offset.y + y - 1
        if at >= len(self._rows):
            words = self._said_when_empty() if not self._rows and y == 1 else ""
            return Strip([Segment(fitted(words, width), self.rich_style + Style(italic=True))], width)
        line = self._drawn.get(at)
        if line is None:
            line = self._drawn[at] = self._line(at, self.has_focus)
        if line.strip is None:
            line.strip = self._strip(line, width)
        return line.strip

    def _said_when_empty(self) -> str:
        return f"nothing has {self._filter!r}; Escape shows all {len(self._given)}" if self._given else self._empty

    def _header(self) -> Strip:
        segments = []
        for laid in self._laid:
            arrow = ("▼" if self._down else "▲") if laid.column is self._by else ""
            name = fitted(laid.column.name + arrow, laid.width, right=laid.column.right)
            segments += [Segment(name, _HEADER), Segment(" " * GAP)]
        return Strip(segments).apply_style(self.rich_style)

    def _strip(self, line: "_Line", width: int) -> Strip:
        base = self._base + _HERE[line.here]
        segments: list[Segment] = []
        run, last, length = "", "", 0
        for laid, cell in zip(self._laid, line.cells, strict=True):
            gap = min(GAP, width - laid.at - laid.width)
            length = laid.at + laid.width + gap
            if isinstance(cell, tuple):
                segments.append(Segment(run, _styled(base, last)))
                segments += [Segment(each.text, _styled(base, each.style)) for each in cell]
                run, last = " " * gap, ""
                continue
            text, style = (cell.text, cell.style) if isinstance(cell, Cell) else (cell, "")
            text = fitted(text, laid.width, right=laid.column.right) + " " * gap
            if style == last:
                run += text
            else:
                segments.append(Segment(run, _styled(base, last)))
                run, last = text, style
        segments.append(Segment(run, _styled(base, last)))
        if length < width:
            segments.append(Segment(" " * (width - length), base))
        return Strip([segment for segment in segments if segment.text], width)

    def _draw_anew(self) -> None:
        self._base = self.rich_style
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
