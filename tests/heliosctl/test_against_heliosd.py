"""The clients against the real daemon with simulated devices and engines: what the stand-in cannot promise."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heliosctl.exits import Exit
from heliosd.core.units import MiB
from tests.heliosctl.conftest import Ended
from tests.store.models import config, model_files, write_folder
from tests.store.related import folder, tuned

pytestmark = pytest.mark.slow
ENV = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")}


@pytest.fixture
def heliosd(socket_path: Path, tmp_path: Path) -> Iterator[Path]:
    """A running daemon with one device of 80 GiB; its socket."""
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[device]]\nname = "g0"\ncapacity = "80GiB"\n')
    words = [sys.executable, "-m", "heliosd", "--simulate", str(fleet), "--state-dir", str(tmp_path / "state")]
    words += ["--socket", str(socket_path), "--port", "0"]
    with subprocess.Popen(words, env=ENV, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 30
            while not socket_path.exists():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline, "heliosd opened no socket"
                time.sleep(0.02)
            yield socket_path
        finally:
            process.terminate()
            process.communicate(timeout=60)


def test_a_day_with_one_model(heliosd: Path, ctl: Callable[..., Ended], tiny_dir: Path):
    def well(*words: str) -> Ended:
        ended = ctl(*words)
        assert ended.code == 0, (words, ended.err)
        return ended

    assert well("import", str(tiny_dir), "--name", "me/tiny", "--alias", "tiny").out == "me/tiny\n"
    assert well("ls", "-q").out == "me/tiny\n"
    assert "fits: needs" in well("estimate", "tiny").out
    assert ctl("rm", "no/such", "-y").code == Exit.NOT_FOUND

    answer = well("run", "tiny", "hello", "--max-tokens", "5", "--verbose")
    assert len(answer.out.split()) == 5
    assert "first token" in answer.err and "started in" in answer.err
    assert "was running already" in well("run", "me/tiny", "hello", "--verbose").err

    (replica,) = json.loads(well("ps", "-o", "json").out)["replicas"]
    assert "MEASURED" in well("estimate", "me/tiny").out
    assert "grant" in well("explain", replica["id"]).out
    assert "g0" in well("gpus", "-o", "wide").out
    assert "ok   database" in well("doctor").out
    assert "add a larger model first" in ctl("doctor", "--storage").err
    assert "heliosd" in well("logs", "-n", "5").out
    assert "self" in well("cluster", "ls").out

    assert ctl("rm", "-y", "tiny").code == Exit.FAILED  # in use
    assert well("stop", "tiny").out == f"{replica['id']}\n"
    well("rm", "-y", "tiny")
    kinds = [event["kind"] for event in json.loads(well("events", "-o", "json").out)["events"]]
    assert kinds.index("start") < kinds.index("ready") < kinds.index("stop")

    top = subprocess.run(
        [sys.executable, "-m", "tui", "--once", "--socket", str(heliosd)],
        check=True,
        capture_output=True,
        text=True,
        env=ENV,
    )
    assert "DEVICES" in top.stdout and "80.0 GiB" in top.stdout


def test_versions_of_a_model(heliosd: Path, ctl: Callable[..., Ended], tmp_path: Path):
    def well(*words: str) -> Ended:
        ended = ctl(*words)
        assert ended.code == 0, (words, ended.err)
        return ended

    for seed in range(3):
        files = model_files(seed=seed) | {"config.json": config(intermediate_size=128 + seed)}
        well("import", str(write_folder(tmp_path / f"v{seed}", files)), "--name", "me/m")
    listed = json.loads(well("revisions", "me/m", "-o", "json").out)["revisions"]
    assert [each["kept"] for each in listed] == [True, True, False]
    newest, middle, oldest = (each["revision"] for each in listed)
    assert json.loads(well("show", f"me/m@{oldest[:8]}", "-o", "json").out)["revision"] == oldest
    assert well("rollback", "me/m").out.strip() == middle
    assert well("rollback", "me/m").out.strip() == newest
    told = well("diff", "me/m").out
    assert "~ config.json: intermediate_size   129 -> 130" in told
    assert "tensors: 1 differ, 0 are the same" in told
    assert ctl("rollback", "me/m", "--to", "0" * 8).code == Exit.NOT_FOUND

    dry = json.loads(well("gc", "--dry-run", "-o", "json").out)
    assert [each["name"] for each in dry["goes"]] == [f"me/m@{oldest[:12]}"]
    store = tmp_path / "state" / "store" / "blobs"
    before = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert json.loads(well("gc", "-o", "json").out) == dry | {"dry_run": False}
    after = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert before - after == dry["freed_bytes"] > 0
    kinds = [event["kind"] for event in json.loads(well("events", "-o", "json").out)["events"]]
    assert "gc" in kinds


def test_keys_open_the_tcp_port(heliosd: Path, ctl: Callable[..., Ended]):
    secret = ctl("keys", "add", "ops", "--admin").out.strip()
    assert ctl("keys", "ls").out.splitlines()[1].split()[:2] == ["ops", "yes"]
    port = _port(ctl)
    elsewhere = [sys.executable, "-m", "heliosctl", "ls", "--url", f"http://127.0.0.1:{port}"]
    allowed = subprocess.run([*elsewhere, "--key", secret], capture_output=True, text=True, env=ENV, check=False)
    assert (allowed.returncode, allowed.stdout.split()[0]) == (0, "MODEL")
    refused = subprocess.run(elsewhere, capture_output=True, text=True, env=ENV, check=False)
    assert refused.returncode == Exit.NOT_ALLOWED
    assert "key" in refused.stderr


def _port(ctl: Callable[..., Ended]) -> str:
    """Which port the daemon found free, from its own log."""
    for line in ctl("logs").out.splitlines():
        if "msg=listening" in line:
            return line.partition("port=")[2].split()[0]
    raise AssertionError("the daemon's log does not tell its port")


def test_fine_tunes_take_little_and_du_says_what_rm_frees(heliosd: Path, ctl: Callable[..., Ended], tmp_path: Path):
    for name, content in (
        ("base", tuned({}, layer_bytes=5 * MiB // 2)),
        ("tune", tuned({3: 1, 4: 1}, layer_bytes=5 * MiB // 2)),
    ):
        assert ctl("import", str(folder(tmp_path / name, content)), "--name", f"me/{name}").code == 0
    assert ctl("cache", "share").code == 0  # or the daemon has done it already
    body = json.loads(ctl("cache", "du", "-o", "json").out)
    assert body["ratio"] < 0.55
    frees = {model["ref"]: model["frees_bytes"] for model in body["models"]}
    noted = json.loads(ctl("events", "-o", "json").out)["events"]
    assert [event["detail"]["files"] for event in noted if event["kind"] == "share"] == [1]
    assert ctl("load", "me/tune").code == 0
    assert json.loads(ctl("cache", "du", "-o", "json").out)["models"][1]["frees_bytes"] == 0, "it is in use"
    assert ctl("stop", "me/tune").code == 0
    removed = json.loads(ctl("rm", "-y", "me/tune", "-o", "json").out)["removed"]
    assert removed[0]["freed_bytes"] == frees["me/tune"] < 7 * MiB
