"""Engines that leak, seen from the command line: a simulated one, and vLLM with a plugin that keeps too much."""

import json
import os
import signal
from pathlib import Path

import pytest

from heliosctl.__main__ import main
from tests.e2e.conftest import TINY
from tests.e2e.daemon import Daemon, heliosd, prepared
from tests.store.models import model_files, write_folder

pytestmark = pytest.mark.slow

FLEET = '[[device]]\nname = "g0"\ncapacity = "8GiB"\n'
WATCHED = """[devices]
read_interval_s = 0.05
[leaks]
window_s = {window_s}
warm_up_s = {warm_up_s}
most_bytes_per_hour = "8GiB"
"""
LEAKY = (
    '[models."test/leaky"]\nkeep_alive_s = "forever"\nkv_cache = "1GiB"\nengine_args = {leak_bytes_per_s = 30000000}\n'
)

PLUGIN = '''
"""Has vLLM's worker keep half a MiB of every step for ever, as a bug would."""

kept = []


def register():
    from vllm.v1.worker.gpu_worker import Worker

    execute_model = Worker.execute_model

    def leaking(self, *args, **kwargs):
        kept.append(b"x" * (1 << 19))
        return execute_model(self, *args, **kwargs)

    Worker.execute_model = leaking
'''


def leaks(daemon: Daemon) -> list[str]:
    return [
        event["message"]
        for event in daemon.events()
        if event["kind"] == "leak" and event["detail"]["subject"] != "daemon"
    ]


def test_a_leak_is_told_everywhere_and_the_engine_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = WATCHED.format(window_s=6, warm_up_s=0) + "recycle = false\n" + LEAKY
    with heliosd(fleet=FLEET, config=config) as daemon:
        daemon.bring(write_folder(tmp_path / "m", model_files()), "test/leaky")
        where = ["--socket", str(daemon.socket)]
        assert main([*where, "load", "test/leaky"]) == 0
        (told, *_) = daemon.until(lambda: leaks(daemon), 60, "no leak was told")
        assert told.startswith("r1 of test/leaky leaks device memory: grows by")
        assert told.endswith("it stays, as leaks.recycle = false says")
        capsys.readouterr()
        assert main([*where, "ps", "-o", "wide"]) == 0
        header, row = capsys.readouterr().out.splitlines()[:2]
        assert "GROWS/H" in header
        assert row.rstrip().endswith("yes")
        assert main([*where, "doctor"]) == 1
        assert "BAD  leaks: r1 of test/leaky leaks: grows by" in capsys.readouterr().out
        assert main([*where, "explain", "r1"]) == 0
        explained = capsys.readouterr().out
        assert "memory over time: it leaks; grows by" in explained
        assert told in explained
        metrics = daemon.admin.get("/metrics").text
        assert 'helios_leak_suspected{replica="r1"} 1.0' in metrics
        assert 'helios_process_pss_bytes{replica="daemon"}' in metrics
        assert 'helios_exhaustion_seconds{device="g0",tier=""}' in metrics
        assert 'helios_exhaustion_seconds{device="",tier="store"}' in metrics
        assert main([*where, "gpus", "-o", "json"]) == 0
        body = json.loads(capsys.readouterr().out)
        assert {space["name"] for space in body["spaces"]} >= {"store", "state"}
        assert "exhaustion" in body["devices"][0]

        daemon.configure(config.replace("recycle = false", "recycle = true"))
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.until(lambda: [each["id"] for each in daemon.replicas()] == ["r2"], 60, "it was not replaced")
        assert 'helios_recycles_total{model="test/leaky",reason="device_leak"} 1.0' in daemon.admin.get("/metrics").text


def test_a_real_engine_that_keeps_what_it_should_not_is_replaced(stock: Path, tmp_path: Path) -> None:
    (tmp_path / "helios_leaky.py").write_text(PLUGIN)
    known = tmp_path / "helios_leaky-1.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: helios-leaky\nVersion: 1.0\n")
    (known / "entry_points.txt").write_text("[vllm.general_plugins]\nhelios_leaky = helios_leaky:register\n")
    config = WATCHED.format(window_s=20, warm_up_s=5)
    config += f'[models."{TINY}"]\nkeep_alive_s = "forever"\nkv_cache = "64MiB"\n'
    with prepared(config=config, stock=stock) as daemon:
        daemon.environment["PYTHONPATH"] = f"{Path.cwd()}:{tmp_path}"
        daemon.start()
        client = daemon.openai()
        client.completions.create(model=TINY, prompt="go", max_tokens=2)
        (first,) = [each["id"] for each in daemon.replicas()]

        def ask() -> bool:
            client.completions.create(model=TINY, prompt="go", max_tokens=2)
            return bool(leaks(daemon))

        daemon.until(ask, 180, "nothing was said of its memory")
        assert f"{first} of {TINY} leaks host memory" in leaks(daemon)[0]
        daemon.until(
            lambda: [each["id"] for each in daemon.replicas() if each["state"] == "ready"] not in ([], [first]),
            120,
            "it was not replaced",
        )
        assert client.completions.create(model=TINY, prompt="go", max_tokens=2).choices
        daemon.stop()
