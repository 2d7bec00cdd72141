"""Two daemons with a shared key find each other and answer for each other; one with another key stays alone."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from heliosd.wire import MemberView
from tests.e2e.daemon import Daemon, heliosd, prepared, until
from tests.store.models import model_files, write_folder

pytestmark = pytest.mark.slow

FLEET = '[[device]]\nname = "g0"\ncapacity = "8GiB"\n'
QUICK = "{load_s = 0.05, tokens_per_s = 200.0}"
ASK = {
    "model": "test/far",
    "stream": True,
    "max_tokens": 5,
    "messages": [{"role": "user", "content": "are you there?"}],
}


def free_port() -> int:
    """A port that nobody has now, for gossip over UDP and TCP."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(port: int, seed: int, key: str = "a secret of many words") -> str:
    return (
        f'[cluster]\nenabled = true\nkey = "{key}"\nbind = "127.0.0.1:{port}"\nseeds = ["127.0.0.1:{seed}"]\n'
        f'[engines]\nkv_cache = "4GiB"\n[pool]\nhot_swap = false\n'
        + "".join(f'[models."test/{name}"]\nengine_args = {QUICK}\n' for name in ("far", "busy"))
    )


def states(daemon: Daemon) -> dict[str, str]:
    members = [MemberView.model_validate(row) for row in daemon.get("cluster")["members"]]
    return {member.name: member.state for member in members}


def knows_far(daemon: Daemon) -> bool:
    return any(row["ref"] == "test/far" and row["peer"] for row in daemon.get("models")["models"])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """`east`, and `west` which alone has the model test/far; they know each other."""
    ports = free_port(), free_port()
    with ExitStack() as stack:
        east = stack.enter_context(heliosd(config=settings(ports[0], ports[1]), fleet=FLEET, name="east"))
        west = stack.enter_context(heliosd(config=settings(ports[1], ports[0]), fleet=FLEET, name="west"))
        west.bring(write_folder(tmp_path / "far", model_files(seed=1)), "test/far", "far")
        both = {"east", "west"}
        until(lambda: states(east).keys() == both == states(west).keys(), 20, "they did not find each other")
        until(lambda: knows_far(east), 20, "east did not learn what west holds")
        yield east, west


def test_a_request_for_a_peers_model_is_forwarded_as_a_stream(pair: tuple[Daemon, Daemon]) -> None:
    east, west = pair
    with httpx.stream("POST", f"{east.url}/v1/chat/completions", json=ASK, timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["x-helios-served-by"] == "west"
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert len(lines) == 5 + 2
    assert json.loads(lines[0].removeprefix("data: "))["model"] == "test/far"
    assert east.replicas() == []
    assert [replica["model"] for replica in west.replicas()] == ["test/far"]
    assert east.openai().chat.completions.create(**{**ASK, "model": "far", "stream": False}).model == "test/far"
    assert "forward" in [event["kind"] for event in east.events(subject=answer.headers["x-request-id"])]


def test_a_peer_that_is_killed_is_told_and_found_again(pair: tuple[Daemon, Daemon]) -> None:
    east, west = pair
    west.kill()
    answer = httpx.post(f"{east.url}/v1/chat/completions", json=ASK, timeout=30)
    assert answer.status_code in (404, 503)
    assert answer.json()["error"]["code"] in ("peer_unreachable", "model_not_found")
    until(lambda: states(east)["west"] in ("dead", "left"), 30, "east did not notice")
    west.start()
    until(lambda: states(east)["west"] == "alive" and knows_far(east), 30, "west was not found again")
    assert httpx.post(f"{east.url}/v1/chat/completions", json=ASK, timeout=30).status_code == 200


def test_another_key_does_not_join(pair: tuple[Daemon, Daemon]) -> None:
    east, _ = pair
    port = int(states_address(east, "east").rpartition(":")[2])
    with prepared(
        config=settings(free_port(), port, key="a secret of other words"), fleet=FLEET, name="thief"
    ) as thief:
        thief.start()
        until(lambda: "gossip started" in thief.log(), 20, "it did not even try")
        assert states(thief) == {"thief": "self"}
        assert "thief" not in states(east)
        forged = {"x-helios-peer": "thief.east.9999999999.forged"}
        assert httpx.get(f"{east.url}/helios/v1/models?local=1", headers=forged).status_code == 401
        thief.stop()


def states_address(daemon: Daemon, name: str) -> str:
    return next(row["address"] for row in daemon.get("cluster")["members"] if row["name"] == name)


def test_a_request_that_would_wait_goes_where_its_model_is_ready(pair: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    """East has the model too, but its device is full of one that somebody uses."""
    east, west = pair
    east.bring(write_folder(tmp_path / "far-too", model_files(seed=1)), "test/far", "far")
    east.bring(write_folder(tmp_path / "busy", model_files(seed=2)), "test/busy", "busy")
    assert httpx.post(f"{west.url}/v1/chat/completions", json=ASK, timeout=30).status_code == 200

    def told() -> bool:
        return any(row["name"] == "west" and row["ready"] == ["test/far"] for row in east.get("cluster")["members"])

    until(told, 20, "west did not tell that the model is ready")
    long = {**ASK, "model": "test/busy", "max_tokens": 100_000}
    with httpx.stream("POST", f"{east.url}/v1/chat/completions", json=long, timeout=30) as busy:
        lines = busy.iter_lines()  # kept: who lets go of it lets go of the request
        assert next(line for line in lines if line.startswith("data: "))
        answer = httpx.post(f"{east.url}/v1/chat/completions", json={**ASK, "stream": False}, timeout=30)
    assert answer.headers["x-helios-served-by"] == "west"
    (forward,) = [each for each in east.events(subject=answer.headers["x-request-id"]) if each["kind"] == "forward"]
    assert "on west, where test/far is ready" in forward["message"]
    assert [replica["model"] for replica in east.replicas()] == ["test/busy"]
