"""`heliosctl simulate`: files in, figures out, and what is wrong with a file said by name."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from heliosd.core.units import GiB
from heliosd.errors import ConfigError
from heliosd.simulation.__main__ import main
from heliosd.simulation.fleet import read
from heliosd.simulation.trace import read_trace

FLEET = """
[[device]]
name = "g"
count = 2
capacity = "80GiB"
foreign = "10GiB"

[[model]]
name = "org/a"
weights = "16GiB"
load = 4

[[model]]
name = "org/pair"
weights = "60GiB"
devices = 2
"""
TRACE = "seconds,model,prompt_tokens,output_tokens\n0,org/a,100,10\n5.5,org/pair,100,10\n60,org/a,100,10\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "fleet.toml").write_text(FLEET)
    (tmp_path / "trace.csv").write_text(TRACE)
    return str(tmp_path / "fleet.toml"), str(tmp_path / "trace.csv")


def test_the_fleet_has_devices_and_models(files: tuple[str, str]) -> None:
    fleet = read(Path(files[0]))
    assert [(each.id, each.capacity_bytes) for each in fleet.devices] == [("g0", 70 * GiB), ("g1", 70 * GiB)]
    pair = fleet.models["org/pair"]
    assert (pair.demand.device_count, pair.load_s) == (2, 63.0)
    assert fleet.models["org/a"].load_s == 4


def test_figures_as_a_table_and_as_json(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fleet", files[0], "--trace", files[1], "--policy", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["helios", "lru", "ollama", "llama-swap", "dedicated"]
    assert lines[1].split()[1] == "3/3"
    assert main(["--fleet", files[0], "--trace", files[1], "--usd", "2", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["helios"]["answered"], found["helios"]["overcommits"], found["helios"]["lost"]) == (3, 0, 0)
    assert found["helios"]["usd"] == pytest.approx(2 * found["helios"]["device_hours"], abs=0.02)


def test_the_command_runs_it_without_a_daemon(files: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "heliosctl", "simulate", "--fleet", files[0], "--trace", files[1], "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)) == {"helios", "lru"}
    done = subprocess.run([*command, "--policy", "magic"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot simulate the policy 'magic'" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seconds,model\n", "no column 'prompt_tokens'"),
        (TRACE + "59,org/a,1,1\n", "line 5: seconds must not go back"),
        (TRACE + "61,org/a,-1,1\n", "line 5"),
        (TRACE + "62,org/a,many,1\n", "line 5"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_trace(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("load = 4", "laod = 4"), "model 1 has an unknown key 'laod'"),
        (('weights = "16GiB"', ""), "needs a name and weights"),
        (('weights = "16GiB"', 'weights = "much"'), "much"),
        (("devices = 2", "devices = 0"), "devices must be from 1 to 64"),
        (("load = 4", "load = -4"), "load must be seconds"),
    ],
)
def test_a_fleet_that_makes_no_sense_is_refused(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET.replace(*change))
    with pytest.raises(ConfigError, match=words):
        read(file)
