"""A whole simulated daemon: what docs/metrics.md promises is there, and a staged fault fires and clears."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from heliosd.telemetry.catalogue import WHEN, catalogue
from tests.e2e.daemon import Daemon, heliosd
from tests.store.models import model_files, write_folder
from tests.telemetry.receiver import Receiver, receiver

pytestmark = pytest.mark.slow

FLEET = '[[device]]\nname = "g"\ncount = 2\ncapacity = "8GiB"\n'
ASK = [{"role": "user", "content": "are you there?"}]
CONFIG = """
[engines]
kv_cache = "4GiB"
[pool]
residence_s = 0
hot_swap = false
[alerts]
interval_s = 0.2
for_s = 0.2
"""
BROKEN = """
[models."test/broken"]
engine_args = {load_s = 0.0, refuses = "CUDA out of memory. Tried to allocate 2.00 GiB."}
"""
WHOLE = '[models."test/broken"]\nengine_args = {load_s = 0.0}\n'


@contextmanager
def receiving() -> Iterator[tuple[str, "list[dict[str, Any]]"]]:
    """A webhook's receiver in a thread: its URL and what it has got."""
    got: list[dict[str, Any]] = []
    begun, loop = threading.Event(), asyncio.new_event_loop()
    there: list[Receiver] = []

    async def receive() -> None:
        async with receiver() as it:
            there.append(it)
            begun.set()
            while True:
                got.append(await it.posts.get())

    task = loop.create_task(receive())

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(10)
    yield there[0].url, got
    loop.call_soon_threadsafe(task.cancel)
    thread.join()


def bring(daemon: Daemon, folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        daemon.bring(write_folder(folder / name, model_files(seed=seed)), f"test/{name}")


def chat(daemon: Daemon, model: str) -> int:
    body = {"model": model, "messages": ASK, "max_tokens": 3}
    return httpx.post(f"{daemon.url}/v1/chat/completions", json=body, timeout=60).status_code


def test_every_documented_family_appears_and_every_family_is_documented(tmp_path: Path) -> None:
    with heliosd(fleet=FLEET, config=CONFIG) as daemon:
        bring(daemon, tmp_path, "a", "b", "c")
        for model in ("a", "b", "c", "a"):  # two devices hold two: the third has one put to sleep
            assert chat(daemon, f"test/{model}") == 200
        text = httpx.get(f"{daemon.url}/metrics").text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        ours = {name for name in families if name.startswith("helios_")}
        documented = {each.name.removesuffix("_total"): each for each in catalogue()}
        assert ours == documented.keys()
        empty = {name for name in ours if not families[name].samples}
        assert empty <= WHEN.keys(), "families without a sample that the page does not say come later"
        for name in ours - empty:
            labels = set(families[name].samples[0].labels) - {"le"}
            assert labels == set(documented[name].labels), name
        assert daemon.metric("helios_evictions_total") > 0
        assert daemon.metric("helios_queue_wait_reason_seconds_total") > 0


def test_a_staged_fault_fires_and_clears_and_the_webhook_gets_both(tmp_path: Path) -> None:
    with receiving() as (url, got):
        config = CONFIG + f'webhook = "{url}"\n'
        with heliosd(fleet=FLEET, config=config + BROKEN, name="gpu7") as daemon:
            bring(daemon, tmp_path, "broken")
            assert chat(daemon, "test/broken") == 502

            def alert(status: str, name: str) -> dict[str, Any] | None:
                alerts = (each["alerts"][0] for each in list(got))
                same = (each for each in alerts if (each["status"], each["labels"]["alertname"]) == (status, name))
                return next(same, None)

            fired = daemon.until(lambda: alert("firing", "HeliosBreakerOpen"), 30, "no alert was posted")
            assert fired["labels"]["model"] == "test/broken"
            assert fired["labels"]["node"] == "gpu7"
            daemon.until(lambda: alert("firing", "HeliosOutOfMemory"), 30, "no alert of memory was posted")
            names = {each["name"] for each in daemon.get("alerts")["alerts"] if each["state"] == "firing"}
            assert {"HeliosBreakerOpen", "HeliosOutOfMemory"} <= names
            findings = {each["name"] for each in daemon.get("doctor")["checks"] if not each["ok"]}
            assert "alert HeliosBreakerOpen" in findings

            daemon.configure(config + WHOLE)
            os.kill(daemon.pid, signal.SIGHUP)
            daemon.until(lambda: chat(daemon, "test/broken") == 200, 30, "the mended model did not start")
            cleared = daemon.until(lambda: alert("resolved", "HeliosBreakerOpen"), 150, "the alert did not clear")
            assert cleared["fingerprint"] == fired["fingerprint"]
            assert cleared["endsAt"] > cleared["startsAt"] == fired["startsAt"]
            said = [each["message"] for each in daemon.events(limit=10_000) if each["kind"] == "alert"]
            assert any(text.startswith("HeliosBreakerOpen fires: test/broken cannot be started on g") for text in said)
            assert any(text.startswith("HeliosBreakerOpen no longer fires") for text in said)
