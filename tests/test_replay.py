"""`heliosctl replay` finds what is not as it was, and says where."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heliosd.core.scheduler import Scheduler
from heliosd.errors import BadRequest
from heliosd.replay import main, replay
from heliosd.state.recording import segments
from tests.history import history
from tests.state.test_recording import recording, tell


@pytest.fixture
async def lines(tmp_path: Path) -> list[str]:
    async with recording(tmp_path) as it:
        scheduler = Scheduler()
        it.begin(scheduler)
        tell(it, scheduler, history())
    return segments(tmp_path)[0].read_text().splitlines()


def changed(line: str, path: tuple[Any, ...], value: Any) -> str:
    said = inner = json.loads(line)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(said)


def line_of(lines: list[str], words: str) -> int:
    return next(number for number, line in enumerate(lines) if words in line)


def test_a_changed_event_is_found(lines: list[str]) -> None:
    at = line_of(lines, '"StartReplica"')
    lines[at] = changed(lines[at], ("event", "ticket"), "t-other")
    outcome = replay(lines)
    (difference,) = outcome.differences
    assert difference.event["ticket"] == "t-other" or difference.line > at + 1
    assert difference.recorded != difference.replayed
    assert outcome.events + outcome.not_replayed + 1 == sum('"event"' in line for line in lines)


def test_a_changed_command_is_found_to_the_last_word(lines: list[str]) -> None:
    at = line_of(lines, '"Hold"')
    index = [each["is"] for each in json.loads(lines[at])["commands"]].index("Hold")
    lines[at] = changed(lines[at], ("commands", index, "position"), 99)  # which `==` of the commands does not see
    (difference,) = replay(lines).differences
    assert difference.line == at + 1 and difference.recorded[index]["position"] == 99


def test_a_difference_ends_its_segment_only(lines: list[str]) -> None:
    at = line_of(lines, '"Grant"')
    broken = [*lines[:at], changed(lines[at], ("commands",), []), *lines[at + 1 :]]
    outcome = replay([*broken, *lines])
    assert len(outcome.differences) == 1 and outcome.segments == 2
    assert outcome.events > sum('"event"' in line for line in lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the recording is empty"),
        ("{}\n", "line 1 of the recording: a recording begins"),
        ("nothing\n{}\n", "line 1 of the recording"),
        ('{"helios": "1"}\n', "line 1 of the recording: 'shared'"),
    ],
)
def test_what_is_no_recording(text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "it").write_text(text)
    assert main([str(tmp_path / "it")]) == 2
    assert words in capsys.readouterr().err


def test_a_broken_line_in_the_middle_is_no_torn_tail(lines: list[str]) -> None:
    with pytest.raises(BadRequest, match="line 3"):
        replay([*lines[:2], lines[2][:-5], *lines[3:]])


def test_no_file_and_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("cannot re") == 2


def test_the_command_line(lines: list[str], tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "heliosctl", "replay", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    file = tmp_path / "it.jsonl"
    file.write_text("\n".join(lines) + "\n")
    good = run(str(file))
    assert good.returncode == 0 and "events gave the same" in good.stdout, good
    at = line_of(lines, '"StartReplica"')
    file.write_text("\n".join([*lines[:at], changed(lines[at], ("commands",), []), *lines[at + 1 :]]) + "\n")
    bad = run(str(file))
    assert bad.returncode == 1
    assert (
        f"line {at + 1}" in bad.stdout and "recorded  nothing" in bad.stdout and "replayed  StartReplica" in bad.stdout
    )
    told = json.loads(run(str(file), "--json").stdout)
    assert told["first_difference"]["recorded"] == [] and told["differing_segments"] == 1
    assert run(str(tmp_path / "none")).returncode == 2
    assert run(str(file), "--save", "x").returncode == 2
