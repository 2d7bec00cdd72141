"""`heliosctl` as a person uses it, against a real daemon with a real model; and one frame of the TUI."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliosctl.exits import Exit
from tests.e2e.conftest import SMOL
from tests.e2e.daemon import Daemon, heliosd

pytestmark = pytest.mark.slow

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def daemon(stock: Path) -> Iterator[Daemon]:
    with heliosd(stock=stock) as daemon:
        yield daemon


def ctl(daemon: Daemon, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")}
    command = [sys.executable, "-m", "heliosctl", "--socket", str(daemon.socket), *words]
    stdin = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False, **stdin)


def said(daemon: Daemon, *words: str, text: str | None = None) -> str:
    done = ctl(daemon, *words, text=text)
    assert done.returncode == Exit.OK, (words, done.returncode, done.stderr)
    return done.stdout


def test_a_question_from_the_estimate_to_the_account(daemon: Daemon) -> None:
    before = json.loads(said(daemon, "estimate", "smollm2", "-o", "json"))
    assert before["verdict"] == "fits"
    assert "Paris" in said(daemon, "run", "smollm2", QUESTION, "--temperature", "0", "--max-tokens", "32")
    assert "Paris" in said(daemon, "run", "smollm2", "--temperature", "0", "--max-tokens", "32", text=QUESTION)
    (replica,) = json.loads(said(daemon, "ps", "-o", "json"))["replicas"]
    assert (replica["model"], replica["state"], replica["leases"]) == (SMOL, "ready", 0)
    predicted, measured = replica["predicted"]["total_bytes"], replica["measured"]["total_bytes"]
    assert before["per_device"]["total_bytes"] == predicted
    assert abs(predicted / measured - 1) < 0.3, "the first guess is far off"
    assert "MEASURED" in said(daemon, "estimate", "smollm2")
    told = said(daemon, "explain", "smollm2")
    assert "start" in told
    assert "grant" in told
    assert "released" in said(daemon, "events", "-o", "json")
    assert f"{SMOL}" in said(daemon, "top", "--once", "--size", "120x30")
    assert said(daemon, "stop", "smollm2").strip() == replica["id"]
    assert json.loads(said(daemon, "ps", "-o", "json"))["replicas"] == []


def test_what_is_here_is_listed_and_shown(daemon: Daemon) -> None:
    rows = json.loads(said(daemon, "ls", "-o", "json"))["models"]
    assert {row["ref"] for row in rows} >= {SMOL, "test/tiny"}
    shown = json.loads(said(daemon, "show", "tiny", "-o", "json"))
    assert shown["ref"] == "test/tiny"
    assert "model.safetensors" in {file["path"] for file in shown["files"]}
    assert "ok" in said(daemon, "doctor").lower() or "yes" in said(daemon, "doctor").lower()


def test_a_folder_comes_and_goes(daemon: Daemon, tiny_dir: Path) -> None:
    done = ctl(daemon, "import", str(tiny_dir), "--name", "test/brief", "--alias", "brief")
    assert done.returncode == Exit.OK, done.stderr
    assert done.stdout.strip() == "test/brief"
    assert said(daemon, "load", "brief")
    assert ctl(daemon, "rm", "brief", "-y").returncode == Exit.FAILED
    said(daemon, "stop", "brief")
    said(daemon, "rm", "brief", "-y")
    assert ctl(daemon, "show", "brief").returncode == Exit.NOT_FOUND


def test_refusals_have_their_exit_codes_and_say_what_to_do(daemon: Daemon) -> None:
    unknown = ctl(daemon, "run", "test/tinny", "hello")
    assert unknown.returncode == Exit.NOT_FOUND
    assert "did you mean test/tiny" in unknown.stderr
    assert unknown.stdout == ""
    assert ctl(daemon, "estimate", "smollm2", "--kv-cache", "4TiB").returncode == Exit.CANNOT_FIT
    assert ctl(daemon, "run").returncode == Exit.USAGE
    nobody = subprocess.run(
        [sys.executable, "-m", "heliosctl", "--socket", str(daemon.folder / "nothing"), "ps"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert nobody.returncode == Exit.UNREACHABLE
    assert "Start it with" in nobody.stderr
