"""The history of hours on disk: added up over restarts, bounded, and read back as windows."""

from pathlib import Path

from heliosd.core.hours import WANTED, ModelHour, PlaceHour, Rows
from heliosd.state.advice import PutOff
from heliosd.state.database import Database
from heliosd.state.hours import KEPT_HOURS, Hours

NOW = 480_000


def rows(hour: int, requests: int = 1, once: int = 1, tokens: int = 10, peak: int = 5) -> Rows:
    return Rows((ModelHour(hour, "a", requests, once, tokens, 1, 100),), (PlaceHour(hour, WANTED, peak, 50),))


async def test_an_hour_is_added_up(tmp_path: Path):
    database = Database(tmp_path / "db")
    await database.open()
    hours = Hours(database)
    await hours.add(rows(NOW, requests=2, once=4, tokens=7, peak=9))
    await hours.add(rows(NOW, requests=3, once=2, tokens=99, peak=3))
    await hours.add(rows(NOW - 5, requests=0))
    (last,) = await hours.models(NOW)
    assert last == ModelHour(NOW, "a", 5, 4, 99, 1, 100)
    assert (await hours.places(NOW))[0].peak_bytes == 9
    asked = (await hours.asked(NOW - 10))["a"]
    assert (asked.requests, asked.hours, asked.first_hour, asked.last_hour) == (5, 2, NOW - 5, NOW)
    assert await hours.observed() == 2 and await hours.observed(NOW) == 1
    await database.close()


async def test_three_months_are_kept(tmp_path: Path):
    database = Database(tmp_path / "db")
    await database.open()
    hours = Hours(database)
    await hours.add(rows(NOW - KEPT_HOURS - 1))
    await hours.add(rows(NOW - KEPT_HOURS + 1))
    await hours.add(rows(NOW))
    assert [each.hour for each in await hours.models()] == [NOW - KEPT_HOURS + 1, NOW]
    assert len(await hours.places()) == 2
    await database.close()


async def test_what_is_put_off_comes_back(tmp_path: Path):
    database = Database(tmp_path / "db")
    await database.open()
    put_off = PutOff(database)
    await put_off.set("rule:a", 4e9)
    await put_off.set("rule:b", 1.0)
    assert await put_off.all() == {"rule:a": 4e9}
    assert await put_off.remove("rule:a") and not await put_off.remove("rule:a")
    await database.close()
