"""A node without a hub pulls a model from another node that has it, with `heliosctl`, and serves it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from heliosctl.exits import Exit
from tests.e2e.daemon import Daemon, heliosd, until
from tests.e2e.test_cluster import FLEET, free_port, knows_far, settings, states
from tests.store.models import model_files, write_folder

pytestmark = pytest.mark.slow

BIG = 24 << 20
"""Two chunks."""
SECRET = '[models."test/secret"]\nshare_with_peers = false\n'


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """`east`, and `west` which has the models test/far and test/secret; they know each other."""
    ports = free_port(), free_port()
    with ExitStack() as stack:
        east = stack.enter_context(heliosd(config=settings(ports[0], ports[1]), fleet=FLEET, name="east"))
        west = stack.enter_context(heliosd(config=settings(ports[1], ports[0]) + SECRET, fleet=FLEET, name="west"))
        west.bring(write_folder(tmp_path / "far", model_files(BIG, seed=1)), "test/far", "far")
        west.bring(write_folder(tmp_path / "secret", model_files(seed=2)), "test/secret")
        until(lambda: states(east).keys() == {"east", "west"} == states(west).keys(), 20, "they did not meet")
        until(lambda: knows_far(east), 20, "east did not learn what west holds")
        yield east, west


def heliosctl(node: Daemon, *words: str) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")}
    done = subprocess.run(
        [sys.executable, "-m", "heliosctl", "--socket", str(node.socket), *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_pull_without_a_hub_comes_from_the_peer(pair: tuple[Daemon, Daemon]) -> None:
    east, west = pair
    code, out, err = heliosctl(east, "pull", "test/far", "-o", "json")
    assert code == Exit.OK, err
    pulled = json.loads(out)
    assert pulled["source"] == "peer test/far, from node west"
    (held,) = [row for row in west.get("models", local=1)["models"] if row["ref"] == "test/far"]
    assert pulled["revision"] == held["revision"]
    assert east.metric("helios_fetched_bytes_total") == pulled["size_bytes"]
    messages = [event["message"] for event in east.events(subject="test/far")]
    assert messages[-1] == "test/far was added from peer test/far, from node west"
    west.stop()
    ask = {"model": "test/far", "max_tokens": 3, "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx.post(f"{east.url}/v1/chat/completions", json=ask, timeout=30)
    assert answer.status_code == 200, answer.text
    assert "x-helios-served-by" not in answer.headers


def test_what_no_peer_gives_is_refused_as_without_a_hub(pair: tuple[Daemon, Daemon]) -> None:
    east, _ = pair
    for name in ("test/secret", "test/nowhere"):
        code, out, err = heliosctl(east, "pull", name)
        assert (code == Exit.OK, out) == (False, "")
        assert f"cannot fetch {name}: the hub is switched off" in err


def test_a_model_that_is_let_go_comes_back_when_it_is_asked_for(pair: tuple[Daemon, Daemon]) -> None:
    east, west = pair
    assert heliosctl(east, "pull", "test/far")[0] == Exit.OK
    code, _, err = heliosctl(west, "tiers", "move", "test/secret", "peer")
    assert code != Exit.OK and "no other node that is alive has 1, such as model.safetensors" in err
    code, _, err = heliosctl(east, "tiers", "move", "test/far", "peer")
    assert (code, err) == (Exit.OK, "test/far was let go: it comes from another node when it is asked for\n")
    code, _, err = heliosctl(west, "tiers", "move", "test/far", "peer")
    assert code != Exit.OK and "no other node that is alive has" in err
    rows = {line.split()[0]: line.split() for line in heliosctl(east, "tiers")[1].splitlines()}
    assert rows["peer"][1:6] == ["-", "24.0", "MiB", "1", rows["peer"][5]]
    assert rows["peer"][6].endswith("/s")
    assert rows["hub"][1:5] == ["-", "0", "B", "0"]
    (listed,) = [row for row in east.get("models", local=1)["models"] if row["ref"] == "test/far"]
    assert listed["tier"] == "peer" and listed["parameters"]
    before = east.metric("helios_fetched_bytes_total")
    ask = {"model": "test/far", "max_tokens": 3, "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx.post(f"{east.url}/v1/chat/completions", json=ask, timeout=30)
    assert answer.status_code == 200, answer.text
    assert "x-helios-served-by" not in answer.headers
    assert BIG < east.metric("helios_fetched_bytes_total") - before < BIG + 1000, "its weights, and nothing else"
    until(lambda: east.get("models", local=1)["models"][0]["tier"] == "nvme", 20, "it is not told to be back")

    def told() -> list[str]:
        return [event["message"] for event in east.events(subject="test/far") if event["kind"] == "tier"]

    until(lambda: len(told()) == 2, 20, "its way back is not in the journal")
    assert told()[0].startswith("test/far was let go, 24.0 MiB are free")
    assert told()[1] == "test/far is here again, 24.0 MiB were fetched"
