"""The table by itself: what it shows, in which order, and how little of it is read."""

import pytest
from textual.app import App, ComposeResult

from tui.columns import Cell, Column, fitted, lay_out
from tui.frame import drawn, plain
from tui.table import Table

COLUMNS = (
    Column("NAME", 8, lambda it, _: it["name"], lambda row: row["name"], grows=True),
    Column("SIZE", 6, lambda it, _: Cell(str(it["size"]), "bold"), lambda row: row["size"], right=True),
    Column("NOTE", 10, lambda it, _: it.get("note", ""), rank=1),
)


class Bare(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.parsed = 0
        self.table: Table = Table(
            COLUMNS, parse=self.parse, key=lambda row: row["name"], words=lambda row: row["name"], empty="nothing"
        )

    def parse(self, row):
        self.parsed += 1
        return row

    def compose(self) -> ComposeResult:
        yield self.table


def rows(count: int) -> list[dict[str, object]]:
    return [{"name": f"m{number}", "size": number * 7 % 11} for number in range(count)]


def lines(app) -> list[str]:
    return plain(drawn(app)).splitlines()


async def test_of_a_thousand_rows_only_the_visible_are_read():
    app = Bare()
    async with app.run_test(size=(40, 10)) as pilot:
        app.table.show(rows(1000))
        await pilot.pause()
        assert lines(app)[0].split() == ["NAME", "SIZE", "NOTE"]
        assert [line.split()[0] for line in lines(app)[1:]] == [f"m{number}" for number in range(9)]
        assert app.parsed < 60
        app.parsed = 0
        await pilot.press("G")
        assert lines(app)[-1].split()[0] == "m999"
        assert app.parsed < 60


async def test_the_cursor_stays_on_its_row():
    app = Bare()
    async with app.run_test(size=(40, 10)) as pilot:
        app.table.show(rows(20))
        await pilot.press("j", "j", "j")
        assert app.table.row["name"] == "m3"
        app.table.show([{"name": "new", "size": 1}, *rows(20)])
        assert app.table.row["name"] == "m3"
        app.table.show([row for row in rows(20) if row["name"] != "m3"])
        assert app.table.row["name"] in ("m4", "m5")
        app.table.show([])
        assert app.table.row is None
        await pilot.press("j", "k", "enter", "G")
        await pilot.pause()
        assert "nothing" in lines(app)[1]


async def test_sorted_by_keys_by_name_and_by_mouse():
    app = Bare()
    async with app.run_test(size=(40, 30)) as pilot:
        app.table.show(rows(11))
        await pilot.press("s", "s")
        await pilot.pause()
        assert [row["size"] for row in app.table.rows] == sorted((row["size"] for row in rows(11)), reverse=True)
        assert "SIZE▼" in lines(app)[0]
        await pilot.press("S")
        assert [row["size"] for row in app.table.rows] == list(range(11))
        await pilot.press("s")
        assert [row["name"] for row in app.table.rows] == [f"m{number}" for number in range(11)]
        app.table.sort_named("si")
        assert app.table.rows[0]["size"] == 10
        await pilot.click(Table, offset=(1, 0))
        assert app.table.rows[0]["name"] == "m0" and app.table.rows[2]["name"] == "m10"
        with pytest.raises(ValueError, match="the columns are name, size"):
            app.table.sort_named("note")


async def test_what_has_no_value_comes_last():
    app = Bare()
    async with app.run_test(size=(40, 30)):
        app.table.show([{"name": "a", "size": None}, {"name": "b", "size": 2}, {"name": "c", "size": 1}])
        app.table.sort_named("size")
        app.table.action_reverse()
        assert [row["name"] for row in app.table.rows] == ["c", "b", "a"]


async def test_the_filter_keeps_rows_that_have_all_words():
    app = Bare()
    async with app.run_test(size=(40, 10)) as pilot:
        app.table.show(rows(30))
        app.table.look_for("M 2")
        assert [row["name"] for row in app.table.rows] == ["m2", "m12", *(f"m{n}" for n in range(20, 30))]
        app.table.look_for("zzz")
        await pilot.pause()
        assert "nothing has 'zzz'" in lines(app)[1]
        app.table.look_for("")
        assert len(app.table.rows) == 30


async def test_a_click_puts_the_cursor_there():
    app = Bare()
    async with app.run_test(size=(40, 10)) as pilot:
        app.table.show(rows(30))
        await pilot.click(Table, offset=(2, 4))
        assert app.table.row["name"] == "m3"


async def test_only_what_changed_is_drawn_anew():
    app = Bare()
    async with app.run_test(size=(40, 10)) as pilot:
        app.table.show(rows(30))
        await pilot.pause()
        drawn_lines = dict(app.table._drawn)
        changed = rows(30)
        changed[2]["size"] = 99
        app.table.show(changed)
        await pilot.pause()
        assert [at for at, line in app.table._drawn.items() if drawn_lines[at] is not line] == [2]
        assert "99" in lines(app)[3]


@pytest.mark.parametrize("width", [5, 12, 20, 40, 200])
def test_columns_fit_any_width_and_lose_the_least_important_first(width):
    laid = lay_out(COLUMNS, width)
    assert sum(each.width for each in laid) + len(laid) - 1 <= width
    names = [each.column.name for each in laid]
    assert names == ["NAME", "SIZE", "NOTE"][: len(names)]
    assert ("NOTE" in names) == (width >= 26)


def test_text_is_cut_by_cells_not_by_letters():
    assert fitted("abc", 5) == "abc  "
    assert fitted("abc", 5, right=True) == "  abc"
    assert fitted("abcdef", 4) == "abc…"
    assert fitted("日本語モデル", 5) == "日本…"
    assert fitted("a\nb", 4) == "a b "
