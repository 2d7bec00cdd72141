"""Logs: an engine's file, also while it grows and after its replica is gone, and the daemon's own."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from heliosd.api.app import build_app
from heliosd.api.listen import listen
from heliosd.api.log_lines import _tail
from heliosd.logs import RecentLog
from tests.api.world import World


async def text(it: World, query: str, expected: int = 200) -> str:
    async with it.local.get(f"/helios/v1/logs{query}") as response:
        assert response.status == expected
        return await response.text()


@pytest.fixture
def log_of_tiny(it: World) -> Path:
    path = it.node.logs / "r-tiny.log"
    path.write_text("".join(f"line {number}\n" for number in range(10)))
    return path


@pytest.mark.parametrize("query", ["?replica=r-tiny&lines=2", "?model=tiny&lines=2", "?model=smol&lines=2"])
async def test_the_last_lines_of_a_replica_or_a_model(it: World, log_of_tiny: Path, query: str) -> None:
    assert await text(it, query) == "line 8\nline 9\n"


async def test_a_model_that_runs_no_more_still_has_its_log(it: World, log_of_tiny: Path) -> None:
    it.node.engines.clear()
    it.journal.note("start", "started", model="tiny", replica="r-tiny")
    await it.journal.flushed()
    assert "line 9" in await text(it, "?model=tiny")


async def test_following_a_file(it: World, log_of_tiny: Path) -> None:
    async with it.local.get("/helios/v1/logs?replica=r-tiny&lines=1&follow=1") as response:
        assert await response.content.readline() == b"line 9\n"
        with log_of_tiny.open("a") as log:
            log.write("line 10\n")
        assert await asyncio.wait_for(response.content.readline(), 5) == b"line 10\n"


@pytest.mark.parametrize("replica", ["..", "../state.db", "r-nobody", "%2e%2e%2fstate.db", ""])
async def test_nothing_but_logs_is_shown(it: World, replica: str) -> None:
    if replica:
        assert "cannot show the log" in await text(it, f"?replica={replica}", 404)


async def test_the_daemons_own_log(it: World) -> None:
    recent = RecentLog()
    for number in range(5):
        recent.append(f"msg={number}")
    listening = await listen(
        build_app(replace(it.parts, log=recent)), host=None, port=0, socket_path=it.node.logs / "b.sock"
    )
    import aiohttp

    async with aiohttp.ClientSession("http://x", connector=aiohttp.UnixConnector(str(listening.socket_path))) as http:
        async with http.get("/helios/v1/logs?lines=2") as response:
            assert await response.text() == "msg=3\nmsg=4\n"
        async with http.get("/helios/v1/logs?lines=1&follow=1") as response:
            assert await response.content.readline() == b"msg=4\n"
            recent.append("msg=5")
            assert await asyncio.wait_for(response.content.readline(), 5) == b"msg=5\n"
    await listening.close()


@pytest.mark.parametrize("size", [10, 200_000])
@pytest.mark.parametrize("lines", [0, 1, 3])
def test_the_tail_of_a_file_is_read_from_its_end(tmp_path: Path, size: int, lines: int) -> None:
    path = tmp_path / "log"
    rows = [f"{number}:{'x' * size}\n" for number in range(3)]
    path.write_text("".join(rows))
    assert _tail(path, lines) == ("".join(rows[3 - lines :]), path.stat().st_size)
