"""`heliosctl pull` against a real daemon and a hub on this machine: refused early, joined, killed and gone on with."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heliosctl.exits import Exit
from tests.e2e.daemon import Daemon, prepared
from tests.store.hub_server import HubServer, running
from tests.store.models import model_files

pytestmark = pytest.mark.slow

FLEET = '[[device]]\nname = "g"\ncapacity = "8GiB"\nkind = "NVIDIA H100 80GB HBM3"\n'
MODELS = '[models."org/huge"]\nkv_cache = "100GiB"\n'
BIG = 48 << 20
"""Three chunks."""


@contextmanager
def served(hub: HubServer) -> Iterator[HubServer]:
    """The hub in a thread of its own."""
    started, loop, done = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with running(hub):
            started.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield hub
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    files = {"org/huge": model_files(BIG), "org/m": model_files(BIG, seed=2)}
    with served(HubServer(files=files)) as hub:
        yield hub


@pytest.fixture
def node(hub: HubServer) -> Iterator[Daemon]:
    config = MODELS + f'[store]\nhub_endpoint = "{hub.url}"\n'
    with prepared(fleet=FLEET, config=config) as daemon:
        daemon.environment = {"HF_HUB_OFFLINE": "0"}
        yield daemon.start()


def begin(node: Daemon, *words: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")}
    command = [sys.executable, "-m", "heliosctl", "--socket", str(node.socket), *words]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def parts(node: Daemon) -> list[Path]:
    return list((node.state / "store/incoming").glob("*.part"))


def test_what_never_fits_costs_kilobytes_unless_it_is_wanted_anyway(node: Daemon, hub: HubServer) -> None:
    code, out, err = ended(begin(node, "pull", "org/huge"))
    assert (code != Exit.OK, out) == (True, "")
    assert "cannot use org/huge on this node, so it was not fetched: org/huge needs 10" in err
    assert "--anyway" in err
    assert hub.sent_bytes < 64 << 10
    code, out, err = ended(begin(node, "pull", "org/huge", "--anyway"))
    assert (code, out) == (Exit.OK, "org/huge\n"), err
    assert "48.0 MiB of 48.0 MiB, 100%" in err
    messages = [event["message"] for event in node.events(subject="org/huge")]
    assert [message.split(":")[0] for message in messages] == [
        "org/huge was refused before its fetch",
        "org/huge is fetched anyway",
        "org/huge is being fetched",
        "org/huge was added from hub org/huge at " + messages[-1][-12:],
    ]


def test_a_second_pull_joins_and_the_first_may_leave(node: Daemon, hub: HubServer) -> None:
    hub.held = lambda path, first, at: at > first
    first = begin(node, "pull", "org/m")
    node.until(lambda: hub.at_once == 3, 30, "the fetch did not begin")
    second = begin(node, "pull", "org/m", "-o", "json")
    assert second.stderr is not None
    line = second.stderr.readline()
    assert line.startswith(("list", "fetch")), line
    first.terminate()
    first.communicate(timeout=30)
    hub.flow.set()
    code, out, err = ended(second)
    assert code == Exit.OK, err
    assert json.loads(out)["ref"] == "org/m"


def test_a_killed_daemon_goes_on_where_it_was(node: Daemon, hub: HubServer) -> None:
    hub.held = lambda path, first, at: first >= 16 << 20 and at > first + (8 << 20)
    pull = begin(node, "pull", "org/m")
    total = sum(map(len, hub.files["org/m"].values()))
    journal = node.state / "store/incoming"
    node.until(lambda: hub.sent_bytes > 32 << 20 and list(journal.glob("*.journal")), 30, "the fetch did not begin")
    node.kill()
    assert ended(pull)[0] != Exit.OK
    hub.flow.set()
    sent, hub.sent_bytes = hub.sent_bytes, 0
    node.start()
    assert [path.stat().st_size for path in parts(node)] == [len(hub.files["org/m"]["model.safetensors"])]
    code, _, err = ended(begin(node, "pull", "org/m"))
    assert code == Exit.OK, err
    assert hub.sent_bytes < total - (16 << 20) + (64 << 10), "the first chunk was durable"
    assert sent + hub.sent_bytes < total + 3 * (16 << 20)
    assert parts(node) == []


def test_who_asks_for_a_model_that_is_being_pulled_waits_and_sees_the_fetch_on_its_start(hub: HubServer) -> None:
    slowly = f'[store]\nhub_endpoint = "{hub.url}"\nmax_download_rate = "16MiB"\n[queue]\ntell_after_s = 0.0\n'
    with prepared(fleet=FLEET, config=MODELS + slowly) as node:
        node.environment = {"HF_HUB_OFFLINE": "0"}
        node.start()
        pulling = begin(node, "pull", "org/m")
        node.until(lambda: len(parts(node)) > 0, 30, "the fetch did not begin")
        body = {"model": "org/m", "stream": True, "messages": [{"role": "user", "content": "are you there?"}]}
        with node.admin.stream("POST", "/v1/chat/completions", json=body) as answer:
            comments = [line for line in answer.iter_lines() if line.startswith(":")]
        assert answer.status_code == 200
        assert ended(pulling)[0] == Exit.OK
        fetching = [line for line in comments if "org/m is being fetched: " in line]
        assert any(" eta=" in line for line in fetching), comments
        code, shown, _ = ended(begin(node, "timeline", "org/m", "-o", "json"))
        assert code == Exit.OK
        view = json.loads(shown)
        phases = [span["phase"] for span in view["spans"]]
        assert phases.index("fetch") < phases.index("verify") < phases.index("dispatch") < phases.index("first_token")
        fetch = next(span for span in view["spans"] if span["phase"] == "fetch")
        assert fetch["ended_s"] - fetch["began_s"] > 0.5 * view["total_s"], "it took most of the time"
        assert view["other_s"] <= 0.05 * view["total_s"]
        assert 'helios_replica_start_seconds_total{phase="fetch"}' in node.admin.get("/metrics").text
