"""An engine's process tells how far its start is."""

import asyncio
from pathlib import Path

import pytest

from heliosd.engines.progress import ADDRESS, Hearing, note_phases, say
from heliosd.engines.start_clock import StartClock


async def test_what_the_engine_says_is_heard_and_what_makes_no_sense_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    clock = StartClock(100.0, heard.put_nowait)
    address = str(tmp_path / "p")
    monkeypatch.setenv(ADDRESS, address)
    hearing = Hearing(address, clock)
    for phase, at in (("weights", 103.0), ("no number", 1.0), ("warm_up", 104.0)):
        say(phase, at)
    assert [await heard.get(), await heard.get()] == ["weights", "warm_up"]
    hearing.close()
    assert clock.timeline().seconds() == {"weights": 3.0, "warm_up": 1.0}


def test_who_is_not_listened_to_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, str(tmp_path / "nobody"))
    say("weights", 1.0)
    monkeypatch.delenv(ADDRESS)
    say("weights", 1.0)


def test_what_the_engine_reports_at_the_end_takes_the_place_of_what_was_heard() -> None:
    told: list[str] = []
    clock = StartClock(100.0, told.append, now=lambda: 100.5)
    clock.mark("configure")
    clock.heard("weights", 109.0)
    parts = [("capture", "warm_up", 103.0, 103.5)]
    note_phases(clock, {"born_at": 101.0, "marks": [("weights", 103.0), ("warm_up", 104.0)], "parts": parts})
    assert clock.timeline().seconds() == {"configure": 0.5, "fork": 0.5, "weights": 2.0, "warm_up": 1.0}
    assert [span.phase for span in clock.timeline().spans][-2:] == ["warm_up", "capture"]
    assert told == ["configure", "weights"]
