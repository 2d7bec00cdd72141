"""Advice and capacity from the command line, against the real daemon whose history was made."""

import asyncio
import json
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from heliosctl.exits import Exit
from heliosd.core.hours import WANTED, ModelHour, PlaceHour, Rows
from heliosd.core.units import GiB
from heliosd.core.week import hour_of
from heliosd.state.database import Database
from heliosd.state.hours import Hours
from tests.heliosctl.conftest import Ended
from tests.heliosctl.test_against_heliosd import heliosd

pytestmark = pytest.mark.slow
__all__ = ["heliosd"]


def remember(state: Path, days: int, models: Callable[[int], tuple[ModelHour, ...]] = lambda hour: ()) -> None:
    """Days in which `g0` was needed by a GiB more each, from 30 GiB on."""

    async def write() -> None:
        database = Database(state / "helios.db")
        await database.open()
        now = hour_of(time.time())
        span = range(now - days * 24 + 1, now + 1)
        places = tuple(
            PlaceHour(hour, place, 30 * GiB + (hour - span[0]) * GiB // 24, 78 * GiB)
            for hour in span
            for place in ("g0", WANTED)
        )
        await Hours(database).add(Rows(tuple(row for hour in span for row in models(hour)), places))
        await database.close()

    asyncio.run(write())


def test_a_pin_nobody_needs_is_taken_away(heliosd: Path, ctl: Callable[..., Ended], tmp_path: Path, tiny_dir: Path):
    assert ctl("import", str(tiny_dir), "--name", "me/tiny").code == 0
    assert "unused_pin: not enough history: " in ctl("recommend").out
    assert ctl("pin", "me/tiny").code == 0

    long_ago = f"update pins set created_at = {time.time() - 40 * 86400}"
    asyncio.run(_execute(tmp_path / "state", long_ago))
    remember(tmp_path / "state", 29)
    listed = json.loads(ctl("recommend", "-o", "json").out)["recommendations"]
    (number,) = [str(at) for at, each in enumerate(listed, 1) if each["id"] == "unused_pin:me/tiny"]
    assert "unpin me/tiny" in ctl("recommend").out
    told = ctl("recommend", number).out
    assert "nobody asked for it" in told and "+ not pinned" in told and "DELETE /helios/v1/pins/me/tiny" in told

    assert ctl("recommend", "--dismiss", number, "--for", "30d").out == "unused_pin:me/tiny\n"
    assert "put off: unused_pin:me/tiny" in ctl("recommend").out
    assert ctl("recommend", "--restore", "unused_pin:me/tiny").code == 0

    unasked = ctl("recommend", "--apply", "unused_pin:me/tiny")
    assert unasked.code == Exit.USAGE and "--yes" in unasked.err
    assert json.loads(ctl("pin", "-o", "json").out)["pins"], "nothing was changed"
    done = ctl("recommend", "--apply", number, "--yes")
    assert done.code == 0 and "- pinned, 1 replica\n+ not pinned" in done.err
    assert json.loads(ctl("pin", "-o", "json").out)["pins"] == []
    assert ctl("recommend", "--apply", "unused_pin:me/tiny", "--yes").code == Exit.NOT_FOUND
    assert ctl("recommend", "1", "--dismiss", "2").code == Exit.USAGE


def test_a_setting_is_the_operators(heliosd: Path, ctl: Callable[..., Ended], tmp_path: Path, tiny_dir: Path):
    assert ctl("import", str(tiny_dir), "--name", "me/tiny").code == 0
    remember(tmp_path / "state", 29, lambda hour: (ModelHour(hour, "me/tiny", 5, 1000, 60, 1, GiB),))
    refused = ctl("recommend", "--apply", "split_replicas:me/tiny", "--yes")
    assert refused.code == Exit.FAILED
    assert 'models."me/tiny".max_replicas = ' in refused.err and "--into FILE" in refused.err

    file = tmp_path / "90-advice.toml"
    done = ctl("recommend", "--apply", "split_replicas:me/tiny", "--yes", "--into", str(file))
    assert done.code == 0 and "+max_replicas = " in done.err and "systemctl reload heliosd" in done.err
    written = tomllib.loads(file.read_text())["models"]["me/tiny"]["max_replicas"]
    assert written > 1
    file.write_text("# mine\n" + file.read_text())
    assert ctl("recommend", "--apply", "split_replicas:me/tiny", "-y", "--into", str(file)).code == Exit.USAGE


def test_when_it_is_full(heliosd: Path, ctl: Callable[..., Ended], tmp_path: Path):
    early = ctl("capacity")
    assert early.code == 0 and "not known yet" in early.out and "not enough history" in early.out
    remember(tmp_path / "state", 29)
    told = ctl("capacity", "--horizon", "90d", "--by-hour").out
    assert "in 19 days" in told or "in 20 days" in told or "in 18 days" in told, told
    assert "g0, by the hour (UTC)" in told
    more = ctl("capacity", "--horizon", "90d", "--with", "1xH100")
    assert "with 1 x H100 more" in more.out
    assert ctl("capacity", "--device", "g7").code == Exit.NOT_FOUND
    assert ctl("capacity", "--with", "abacus").code == Exit.FAILED
    assert ctl("capacity", "--horizon", "soon").code == Exit.USAGE


async def _execute(state: Path, sql: str) -> None:
    database = Database(state / "helios.db")
    await database.open()
    await database.run(lambda db: db.execute(sql).rowcount)
    await database.close()
