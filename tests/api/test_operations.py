"""Replicas scaled, moved, limited, evicted, woken, and devices drained, over the API of a whole node."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.operated import Operated, operated


@pytest.fixture
async def it() -> AsyncIterator[Operated]:
    with tempfile.TemporaryDirectory() as name:
        async with operated(Path(name)) as made:
            yield made


def places(it: Operated) -> dict[str, tuple[str, ...]]:
    return {each.id: each.devices for each in it.world.node.snapshot().replicas}


async def test_a_model_is_scaled_up_and_down(it: Operated) -> None:
    up = await it.ask("POST", "/helios/v1/replicas", {"model": "a", "count": 3, "devices": ["g1"]})
    assert (up["model"], up["started"], up["stopped"]) == ("me/a", ["r1", "r2", "r3"], [])
    assert set(places(it).values()) == {("g1",)}
    down = await it.ask("POST", "/helios/v1/replicas", {"model": "a", "count": 1})
    assert len(down["stopped"]) == 2
    assert len(places(it)) == 1


async def test_a_replica_moves_to_another_device(it: Operated) -> None:
    await it.ask("POST", "/helios/v1/replicas", {"model": "me/a", "count": 1, "devices": ["g0"]})
    moved = await it.ask("POST", "/helios/v1/move/me/a", {"devices": ["g1"]})
    assert (moved["stopped"], moved["replica"]["devices"]) == (["r1"], ["g1"])
    assert places(it) == {"r2": ("g1",)}
    await it.ask("POST", "/helios/v1/move/r2", {"devices": ["g1"]}, status=409)


async def test_a_replica_is_not_stopped_for_a_place_that_is_none(it: Operated) -> None:
    await it.ask("POST", "/helios/v1/replicas", {"model": "me/a", "count": 1, "devices": ["g0"]})
    await it.ask("POST", "/helios/v1/drain", {"device": "g1"})
    said = await it.ask("POST", "/helios/v1/move/me/a", {"devices": ["g1"]}, status=503)
    assert "an operator drains it" in said["error"]["message"]
    assert places(it) == {"r1": ("g0",)}


async def test_a_limit_changes_at_once_or_with_a_restart(it: Operated) -> None:
    await it.ask("POST", "/helios/v1/replicas", {"model": "me/a"})
    [now] = (await it.ask("PATCH", "/helios/v1/limits/r1", {"max_num_seqs": 2}))["changes"]
    assert (now["after"], now["how"], now["replaced_by"]) == (2, "now", None)
    assert [each.limit for each in it.world.node.snapshot().replicas] == [2]
    [then] = (await it.ask("PATCH", "/helios/v1/limits/r1", {"kv_cache_bytes": 2**30}))["changes"]
    assert (then["before"], then["after"], then["how"], then["replaced_by"]) == (2**31, 2**30, "restart", "r2")
    [replica] = it.world.node.snapshot().replicas
    assert (replica.id, replica.promised.kv_cache_bytes) == ("r2", 2**30)
    await it.ask("PATCH", "/helios/v1/limits/r2", {}, status=400)


async def test_evict_says_what_it_frees_and_costs_and_wake_brings_it_back(it: Operated) -> None:
    await it.ask("POST", "/helios/v1/replicas", {"model": "me/a"})
    told = await it.ask("POST", "/helios/v1/evict/me/a")
    [step] = told["plan"]["steps"]
    assert (told["evicted"], step["what"], step["devices"]) == (["r1"], "sleep", ["g0"])
    assert step["frees_bytes"] > 2**31 and step["costs_s"] > 0
    assert [each.state for each in it.world.node.snapshot().replicas] == ["asleep"]
    [awake] = (await it.ask("POST", "/helios/v1/wake/me/a"))["replicas"]
    assert (awake["id"], awake["state"]) == ("r1", "ready")
    await it.ask("POST", "/helios/v1/wake/me/a", status=409)
    await it.ask("POST", "/helios/v1/evict/me/a", {"to": "stop"})
    assert places(it) == {}


async def test_a_drained_device_stays_out_over_a_restart() -> None:
    with tempfile.TemporaryDirectory() as name:
        async with operated(Path(name)) as it:
            await it.ask("POST", "/helios/v1/replicas", {"model": "me/a", "count": 1, "devices": ["g0"]})
            view = await it.ask("POST", "/helios/v1/drain", {"device": "g0"})
            assert (view["devices"], view["stopped"]) == (["g0"], ["r1"])
        async with operated(Path(name)) as it:
            await it.ask("POST", "/helios/v1/replicas", {"model": "me/a"})
            assert set(places(it).values()) == {("g1",)}
            devices = (await it.ask("GET", "/helios/v1/devices"))["devices"]
            assert [each["drained"] for each in devices] == [True, False]
            assert (await it.ask("DELETE", "/helios/v1/drain?device=g0"))["devices"] == []
            await it.ask("DELETE", "/helios/v1/drain?device=g0", status=404)


async def test_a_drained_node_refuses_until_it_is_ended_and_keeps_its_pins(it: Operated) -> None:
    await it.ask("PUT", "/helios/v1/pins/me/a", {"replicas": 1})
    await it.ask("POST", "/helios/v1/replicas", {"model": "me/a"})
    assert (await it.ask("POST", "/helios/v1/drain"))["node"]
    assert places(it) == {}
    said = await it.ask("POST", "/helios/v1/replicas", {"model": "me/b"}, status=503)
    assert said["error"]["code"] == "draining"
    assert not (await it.ask("DELETE", "/helios/v1/drain"))["node"]
    version = -1
    while not any(each.state == "ready" for each in it.world.node.snapshot().replicas):
        version = await it.world.node.changed(version)
