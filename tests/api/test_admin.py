"""The node, its devices, keys, cluster, replicas, estimates and doctor, over the Unix socket."""

from dataclasses import replace
from typing import Any

import pytest

from heliosd.api.admin import doctor
from heliosd.core.messages import Priority
from heliosd.core.names import Ticket
from heliosd.core.snapshot import Waiting
from heliosd.errors import HeliosError
from heliosd.wire import (
    CheckView,
    DeviceList,
    EstimateView,
    KeyList,
    KeyView,
    MemberList,
    NodeView,
    QueueList,
    ReplicaList,
    ReplicaView,
)
from tests.api.world import MIB, World


async def get(it: World, path: str, expected: int = 200) -> Any:
    async with it.local.get(path) as response:
        assert response.status == expected, await response.text()
        return await response.json()


async def test_the_node_says_what_it_is(it: World) -> None:
    node = NodeView.model_validate(await get(it, "/helios/v1/node"))
    assert (node.name, node.state, [kind.state for kind in node.engines]) == ("west", "running", ["warm"])
    it.node.accepting = False
    assert (await get(it, "/helios/v1/node"))["state"] == "starting"
    it.node.draining = True
    assert (await get(it, "/helios/v1/node"))["state"] == "draining"


async def test_devices_carry_the_ledgers_columns(it: World) -> None:
    [device] = DeviceList.model_validate(await get(it, "/helios/v1/devices")).devices
    assert device.promised_bytes == (256 + 1024 + 300) * MIB
    assert (device.kv_cache_bytes, device.utilization_ratio) == (1024 * MIB, 0.5)


async def test_replicas_are_listed_with_what_their_engine_says(it: World) -> None:
    [replica] = ReplicaList.model_validate(await get(it, "/helios/v1/replicas")).replicas
    assert (replica.id, replica.state, replica.phases) == ("r-tiny", "ready", {"fork": 0.1, "load": 1.2})
    assert replica.keep_alive_s is None
    assert replica.idle_s == 5.0


async def test_load_answers_when_ready(it: World) -> None:
    async with it.local.post("/helios/v1/replicas", json={"model": "tiny"}) as response:
        assert ReplicaView.model_validate(await response.json()).id == "r-tiny"
    async with it.local.post("/helios/v1/replicas", json={"model": "nobody"}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("subject", ["r-tiny", "tiny"])
async def test_stop_takes_a_replica_or_a_model(it: World, subject: str) -> None:
    async with it.local.delete(f"/helios/v1/replicas/{subject}") as response:
        assert await response.json() == {"stopped": ["r-tiny"]}
    async with it.local.delete(f"/helios/v1/replicas/{subject}") as response:
        assert response.status == 404


async def test_a_body_that_is_wrong_names_the_field(it: World) -> None:
    async with it.local.post("/helios/v1/replicas", json={"modle": "tiny"}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "bad_request", "model")
    async with it.local.post("/helios/v1/estimate", json={"model": "tiny", "kv": 1}) as response:
        error = (await response.json())["error"]
    assert error["param"] == "kv"
    assert "known are: model, kv_cache_bytes" in error["message"]
    async with it.local.post("/helios/v1/replicas", data=b"{") as response:
        assert (await response.json())["error"]["code"] == "malformed_json"
    async with it.local.post("/helios/v1/replicas", json={"model": "a b"}) as response:
        assert (await response.json())["error"]["code"] == "bad_model_name"


async def test_estimates_by_body_and_by_query(it: World) -> None:
    async with it.local.post("/helios/v1/estimate", json={"model": "tiny", "kv_cache_bytes": 2**20}) as response:
        asked = EstimateView.model_validate(await response.json())
    assert (asked.verdict, asked.per_device.kv_cache_bytes) == ("fits", 2**20)
    assert asked.per_device.total_bytes == (256 + 1 + 300) * MIB
    query = await get(it, "/helios/v1/estimate?model=tiny&kv_cache_bytes=1048576")
    assert EstimateView.model_validate(query) == asked
    assert (await get(it, "/helios/v1/estimate?model=tiny&kv_cache_bytes=x", 400))["error"]["param"] == "kv_cache_bytes"
    assert (await get(it, "/helios/v1/estimate", 400))["error"]["code"] == "missing_model"


async def test_the_cluster_shows_who_holds_what(it: World) -> None:
    west, east = MemberList.model_validate(await get(it, "/helios/v1/cluster")).members
    assert (west.name, west.state, west.models) == ("west", "self", ["org/other", "smol", "tiny"])
    assert (east.name, east.state, east.models) == ("east", "alive", ["far", "tiny"])


async def test_keys_are_made_listed_and_removed(it: World) -> None:
    async with it.local.post("/helios/v1/keys", json={"name": "ci", "admin": True}) as response:
        made = KeyView.model_validate(await response.json())
    assert made.secret is not None
    async with it.http.get("/helios/v1/keys", headers={"x-api-key": made.secret}) as response:
        [listed] = KeyList.model_validate(await response.json()).keys
    assert (listed.name, listed.admin, listed.secret) == ("ci", True, None)
    async with it.local.post("/helios/v1/keys", json={"name": "ci"}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (409, "key_exists")
    async with it.local.delete("/helios/v1/keys/ci") as response:
        assert response.status == 200
    async with it.http.get("/helios/v1/keys", headers={"x-api-key": made.secret}) as response:
        assert response.status == 401


async def test_unknown_paths_and_methods(it: World) -> None:
    assert (await get(it, "/nowhere", 404))["error"]["code"] == "unknown_path"
    async with it.local.put("/helios/v1/node") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET")
        assert (await response.json())["error"]["code"] == "method_not_allowed"


async def test_ready_while_requests_are_taken(it: World) -> None:
    async with it.http.get("/readyz") as response:
        assert response.status == 200
    it.node.accepting, it.node.draining = False, True
    async with it.http.get("/readyz") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (503, "draining")
        assert response.headers["Retry-After"] == "1"
    async with it.http.get("/healthz") as response:
        assert response.status == 200


async def test_the_doctor_tells_of_checks_that_fail(it: World) -> None:
    async def well() -> list[CheckView]:
        return [CheckView(name="one", ok=True, message="fine")]

    async def raises() -> list[CheckView]:
        raise HeliosError("cannot read the disk", cause="EIO")

    response = await doctor(None, replace(it.parts, checks=(well, raises), warnings=lambda: ["no GPU"]))  # type: ignore[arg-type]
    assert response.body == (  # type: ignore[attr-defined]
        b'{"checks":[{"name":"one","ok":true,"message":"fine","advice":null},'
        b'{"name":"raises","ok":false,"message":"cannot read the disk","advice":"EIO"},'
        b'{"name":"warning","ok":false,"message":"no GPU","advice":null}]}'
    )


async def test_every_request_is_one_line_in_the_log(it: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "heliosd.api"):
        async with it.http.post("/v1/chat/completions", json={"model": "nobody"}) as response:
            ticket = response.headers["X-Request-Id"]
        async with it.http.get("/healthz") as response:
            await response.read()
    [line] = [record for record in caplog.records if record.msg == "request"]
    said = {name: getattr(line, name) for name in ("method", "path", "status", "code", "model", "client")}
    assert said == {
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 404,
        "code": "model_not_found",
        "model": "nobody",
        "client": "127.0.0.1",
    }
    assert line.seconds < 1  # type: ignore[attr-defined]
    assert ticket.startswith("t-")


async def test_changes_of_keys_are_in_the_journal(it: World) -> None:
    async with it.local.post("/helios/v1/keys", json={"name": "ci", "admin": True}) as response:
        secret = (await response.json())["secret"]
    await it.journal.flushed()
    [entry] = await it.journal.read(kinds=("key",))
    assert (entry.kind, entry.message) == ("key", "an admin key named ci was made: normal priority, 1 of a fair share")
    assert secret not in entry.message


async def test_a_keys_terms_are_set_changed_and_noted(it: World) -> None:
    body = {"name": "ci", "priority": "high", "share": 2.0}
    async with it.local.post("/helios/v1/keys", json=body) as response:
        made = KeyView.model_validate(await response.json())
    assert (made.priority, made.share) == ("high", 2.0)
    async with it.local.patch("/helios/v1/keys/ci", json={"priority": "low"}) as response:
        changed = KeyView.model_validate(await response.json())
    assert (changed.priority, changed.share, changed.secret) == ("low", 2.0, None)
    await it.journal.flushed()
    assert [entry.message for entry in await it.journal.read(kinds=("key",))] == [
        "a key named ci was made: high priority, 2 of a fair share",
        "the key named ci was changed: low priority, 2 of a fair share",
    ]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "bad_request"),
        ({"priority": "urgent"}, 400, "bad_request"),
        ({"share": 0}, 400, "bad_request"),
        ({"share": 1e9}, 400, "bad_request"),
        ({"name": "other"}, 400, "bad_request"),
        ({"share": 2}, 404, "key_not_found"),
    ],
)
async def test_terms_that_make_no_sense(it: World, body: dict[str, object], status: int, code: str) -> None:
    async with it.local.patch("/helios/v1/keys/ci", json=body) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (status, code)


async def test_the_queue_tells_who_waits_in_the_order_of_service(it: World) -> None:
    key, _ = await it.keys.add("laptop", admin=False)
    it.node.waiting = (
        Waiting(Ticket("t1"), "big", 90.0, "r2 is starting", 1, None, Priority.LOW, "key_at_a_peer"),
        Waiting(Ticket("t2"), "big", 95.0, "r2 is starting", 0, 12.0, Priority.HIGH, key.id),
    )
    async with it.local.get("/helios/v1/queue") as response:
        first, second = QueueList.model_validate(await response.json()).queue
    assert (first.ticket, first.position, first.eta_s, first.priority, first.key) == ("t2", 0, 12.0, "high", "laptop")
    assert (second.ticket, second.position, second.eta_s, second.key) == ("t1", 1, None, "key_at_a_peer")
    assert (first.waiting_s, second.waiting_s) == (5.0, 10.0)
    assert first.since is not None and second.since is not None
    assert round(first.since - second.since) == 5
