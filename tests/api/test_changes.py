"""Every change of the node has a dry run that changes nothing, a line in the audit, and is made once under its key."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heliosd.api.openapi import ROUTES, document
from heliosd.api.routes import Answer, Route, Scope
from heliosd.wire import ChangePlan
from tests.api.operated import Operated, operated
from tests.node.world import write_model

CHANGING = [route for route in ROUTES if route.changes]

SAMPLES: dict[tuple[str, str], tuple[str, Any]] = {
    ("POST", "/helios/v1/models"): ("/helios/v1/models", {"source": "directory", "location": "?", "ref": "me/c"}),
    ("DELETE", "/helios/v1/models/{ref:.+}"): ("/helios/v1/models/me/b", None),
    ("POST", "/helios/v1/models/{ref:.+}/rollback"): ("/helios/v1/models/me/b/rollback", {}),
    ("POST", "/helios/v1/store/gc"): ("/helios/v1/store/gc", {}),
    ("PUT", "/helios/v1/aliases/{alias:.+}"): ("/helios/v1/aliases/best", {"ref": "me/b"}),
    ("DELETE", "/helios/v1/aliases/{alias:.+}"): ("/helios/v1/aliases/a", None),
    ("POST", "/helios/v1/cache/share"): ("/helios/v1/cache/share", None),
    ("POST", "/helios/v1/replicas"): ("/helios/v1/replicas", {"model": "me/b", "count": 2, "devices": ["g1"]}),
    ("DELETE", "/helios/v1/replicas/{subject:.+}"): ("/helios/v1/replicas/me/a", None),
    ("POST", "/helios/v1/sleep/{subject:.+}"): ("/helios/v1/sleep/me/a", None),
    ("POST", "/helios/v1/wake/{subject:.+}"): ("/helios/v1/wake/sleeper", None),
    ("POST", "/helios/v1/evict/{subject:.+}"): ("/helios/v1/evict/me/a", {"to": "stop"}),
    ("POST", "/helios/v1/move/{subject:.+}"): ("/helios/v1/move/me/a", {"devices": ["g1"]}),
    ("PATCH", "/helios/v1/limits/{subject:.+}"): ("/helios/v1/limits/me/a", {"max_num_seqs": 3}),
    ("POST", "/helios/v1/drain"): ("/helios/v1/drain", {"device": "g0"}),
    ("DELETE", "/helios/v1/drain"): ("/helios/v1/drain?device=g1", None),
    ("PUT", "/helios/v1/pins/{model:.+}"): ("/helios/v1/pins/me/b", {"replicas": 1}),
    ("DELETE", "/helios/v1/pins/{model:.+}"): ("/helios/v1/pins/me/a", None),
    ("PUT", "/helios/v1/tiers/models/{model:.+}"): ("/helios/v1/tiers/models/me/a", {"tier": "nvme"}),
    ("POST", "/helios/v1/warmups"): ("/helios/v1/warmups", None),
    ("POST", "/helios/v1/doctor/storage"): ("/helios/v1/doctor/storage", None),
    ("POST", "/helios/v1/keys"): ("/helios/v1/keys", {"name": "new", "admin": True}),
    ("PATCH", "/helios/v1/keys/{name:.+}"): ("/helios/v1/keys/ci", {"share": 2.0}),
    ("DELETE", "/helios/v1/keys/{name:.+}"): ("/helios/v1/keys/ci", None),
    ("POST", "/helios/v1/config/reload"): ("/helios/v1/config/reload", None),
    ("PUT", "/helios/v1/log"): ("/helios/v1/log", {"level": "warning"}),
}
REFUSED: dict[tuple[str, str], tuple[str, object, int]] = {
    ("DELETE", "/helios/v1/warmups/{key}"): ("/helios/v1/warmups/abc", None, 404),
    ("PUT", "/helios/v1/recommendations/{id:.+}/put_off"): (
        "/helios/v1/recommendations/unused_pin:me/a/put_off",
        {"for_s": 3600},
        404,
    ),
    ("DELETE", "/helios/v1/recommendations/{id:.+}/put_off"): (
        "/helios/v1/recommendations/unused_pin:me/a/put_off",
        None,
        404,
    ),
}
"""What a test has nothing for; its dry run is refused as the change would be."""
FREED = {"/helios/v1/replicas/me/a", "/helios/v1/evict/me/a", "/helios/v1/sleep/me/a"}


@pytest.fixture
async def it() -> AsyncIterator[Operated]:
    with tempfile.TemporaryDirectory() as name:
        async with operated(Path(name)) as made:
            yield made


async def prepared(it: Operated, method: str, path: str, body: Any) -> tuple[str, Any]:
    """With what the sample needs there."""
    if "/keys/ci" in path:
        await it.keys.add("ci", admin=False)
    elif "rollback" in path:
        await it.ask("POST", "/helios/v1/replicas", {"model": "me/b"})
        await it.ask("DELETE", "/helios/v1/replicas/me/b")
        await write(it, "other", "me/b")
    elif path.endswith("/models") and method == "POST":
        body = {**body, "location": str(await asyncio.to_thread(write_model, it.world.folder / "new", "new"))}
    elif "/pins/me/a" in path:
        await it.ask("PUT", "/helios/v1/pins/me/a", {"replicas": 1})
        version = -1
        while not any(each.state == "ready" for each in it.world.node.snapshot().replicas):
            version = await it.world.node.changed(version)
    elif method == "DELETE" and "/drain" in path:
        await it.ask("POST", "/helios/v1/drain", {"device": "g1"})
    elif any(
        word in path for word in ("/replicas/me/a", "/sleep/", "/wake/", "/evict/", "/move/", "/limits/", "/drain")
    ):
        view = await it.ask("POST", "/helios/v1/replicas", {"model": "me/a"})
        if "sleeper" in path:
            await it.ask("POST", "/helios/v1/sleep/me/a")
            path = path.replace("sleeper", view["id"])
    return path, body


async def write(it: Operated, tag: str, ref: str) -> None:
    """Let a ref mean something else."""
    folder = await asyncio.to_thread(write_model, it.world.folder / tag, tag)
    async with it.local.post(
        "/helios/v1/models", json={"source": "directory", "location": str(folder), "ref": ref}
    ) as response:
        assert "event: done" in await response.text()


def test_every_changing_route_has_a_sample_here() -> None:
    assert {(route.method, route.path) for route in CHANGING} == SAMPLES.keys() | REFUSED.keys()


def test_every_changing_route_is_written_down_with_its_dry_run_and_its_key() -> None:
    paths = document(ROUTES)["paths"]
    for route in ROUTES:
        plain = route.path.replace(":.+", "")
        names = {each["name"] for each in paths[plain][route.method.lower()]["parameters"]}
        both = {"dry_run", "Idempotency-Key", "X-Helios-Reason"}
        assert names & both == (both if route.changes else set()), route.path


def test_a_changing_route_cannot_be_made_without_a_dry_run() -> None:
    route = CHANGING[0]
    with pytest.raises(TypeError, match="has no dry run"):
        Route("PUT", "/helios/v1/x", route.handler, Scope.ADMIN, "", Answer(""))
    with pytest.raises(TypeError, match="changes nothing"):
        Route("GET", "/helios/v1/x", route.handler, Scope.ADMIN, "", Answer(""), preview=route.preview)


@pytest.mark.parametrize(("method", "route"), SAMPLES, ids=lambda each: str(each).removeprefix("/helios/v1/"))
async def test_a_dry_run_plans_and_changes_nothing(it: Operated, method: str, route: str) -> None:
    path, body = await prepared(it, method, *SAMPLES[method, route])
    before = await it.state()
    join = "&" if "?" in path else "?"
    answer = await it.ask(method, f"{path}{join}dry_run=true", body, headers={"X-Helios-Reason": "to see"})
    plan = ChangePlan.model_validate(answer)
    assert plan.dry_run and plan.summary
    assert all(step.reason for step in plan.steps)
    if path in FREED:
        assert plan.frees_bytes > 2 * 2**30
    assert await it.state() == before
    last = (await it.audit())[-1]
    assert (last["result"], last["why"], last["who"], last["status"]) == ("planned", "to see", "uid 0", 200)
    assert last["what"].startswith(f"{method} {path.partition('?')[0]}")


async def test_a_dry_run_is_refused_as_the_change_would_be(it: Operated) -> None:
    for (method, _), (path, body, status) in REFUSED.items():
        await it.ask(method, f"{path}?dry_run=1", body, status=status)
    for path, asked, status in (
        ("/helios/v1/replicas", {"model": "no/such", "count": 1}, 404),
        ("/helios/v1/replicas", {"model": "me/a", "count": 1, "devices": ["g7"]}, 400),
        ("/helios/v1/replicas", {"model": "me/a", "count": 1, "kv_cache_bytes": 2**40}, 422),
        ("/helios/v1/replicas", {"model": "me/a", "devices": ["g0"]}, 400),
        ("/helios/v1/evict/nobody", {}, 404),
        ("/helios/v1/drain", {"device": "g9"}, 404),
    ):
        said = await it.ask("POST", f"{path}?dry_run=true", asked, status=status)
        assert said["error"]["message"].startswith("cannot")
        assert await it.ask("POST", path, asked, status=status) == said
    assert (await it.audit())[-1]["result"] == "refused"


@pytest.mark.parametrize(("method", "route"), SAMPLES, ids=lambda each: str(each).removeprefix("/helios/v1/"))
async def test_a_change_is_made_once_under_its_key(it: Operated, method: str, route: str) -> None:
    path, body = await prepared(it, method, *SAMPLES[method, route])
    headers = {"Idempotency-Key": "once", "X-Helios-Reason": "it is time"}
    async with it.local.request(method, path, json=body, headers=headers) as first:
        told, status = await first.text(), first.status
    after = await it.state()
    async with it.local.request(method, path, json=body, headers=headers) as second:
        again, repeated = await second.text(), second.headers.get("Idempotency-Replayed")
    done = [each for each in await it.audit() if each["idempotency_key"] == "once"]
    assert (done[0]["why"], done[0]["status"]) == ("it is time", status)
    if status in (404, 409) or status >= 500:
        assert repeated is None
        return
    assert (second.status, repeated) == (status, "true")
    assert await it.state() == after
    assert [each["result"] for each in done][1:] == ["repeated"]
    if "event: done" in told:
        assert again.rpartition("event: done")[2] == told.rpartition("event: done")[2]
    elif "secret" not in told:
        assert again == told
    join = "&" if "?" in path else "?"
    async with it.local.request(method, f"{path}{join}other=1", json=body, headers=headers) as third:
        assert third.status == 422
        assert (await third.json())["error"]["code"] == "idempotency_key_reused"


async def test_the_secret_of_a_key_is_shown_once_and_kept_nowhere(it: Operated) -> None:
    headers = {"Idempotency-Key": "k"}
    made = await it.ask("POST", "/helios/v1/keys", {"name": "ci"}, status=201, headers=headers)
    again = await it.ask("POST", "/helios/v1/keys", {"name": "ci"}, status=201, headers=headers)
    assert made["secret"]
    assert again == {**made, "secret": None}
    await it.world.journal.flushed()
    for table in ("kept_answers", "journal"):
        rows = await it.world.database.run(lambda db, table=table: str(list(db.table(table).rows)))
        assert made["secret"] not in rows


async def test_repeats_at_the_same_time_wait_for_the_first(it: Operated) -> None:
    body, headers = {"model": "me/a", "count": 1}, {"Idempotency-Key": "k"}
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(it.ask("POST", "/helios/v1/replicas", body, headers=headers)) for _ in range(5)]
    answers = [each.result() for each in asked]
    assert all(each["started"] == ["r1"] for each in answers)
    assert len(it.world.node.snapshot().replicas) == 1
    assert sorted(each["result"] for each in await it.audit()) == ["done", *["repeated"] * 4]


async def test_another_caller_has_keys_of_his_own(it: Operated) -> None:
    _, secret = await it.keys.add("ops", admin=True)
    headers = {"Idempotency-Key": "k"}
    await it.ask("PUT", "/helios/v1/aliases/x", {"ref": "me/a"}, headers=headers)
    async with it.http.put(
        "/helios/v1/aliases/x", json={"ref": "me/b"}, headers={**headers, "Authorization": f"Bearer {secret}"}
    ) as response:
        assert (await response.json())["ref"] == "me/b"
    assert [each["who"] for each in await it.audit()] == ["uid 0", "key ops"]


async def test_what_failed_for_now_may_be_tried_again_under_its_key(it: Operated) -> None:
    headers = {"Idempotency-Key": "k"}
    await it.ask("PUT", "/helios/v1/aliases/x", {"ref": "me/new"}, status=404, headers=headers)
    await it.world.add("me/new")
    await it.ask("PUT", "/helios/v1/aliases/x", {"ref": "me/new"}, headers=headers)


async def test_an_answer_is_kept_over_a_restart() -> None:
    with tempfile.TemporaryDirectory() as name:
        async with operated(Path(name)) as it:
            first = await it.ask("PUT", "/helios/v1/pins/me/a", {"replicas": 1}, headers={"Idempotency-Key": "k"})
        async with operated(Path(name)) as it:
            await it.ask("DELETE", "/helios/v1/pins/me/a")
            again = await it.ask("PUT", "/helios/v1/pins/me/a", {"replicas": 1}, headers={"Idempotency-Key": "k"})
            assert again == first
            assert (await it.ask("GET", "/helios/v1/pins"))["pins"] == []


async def test_refused_callers_are_in_the_audit_and_cannot_fill_it(it: Operated) -> None:
    for _ in range(40):
        async with it.http.delete(
            "/helios/v1/models/me/a", headers={"Authorization": "Bearer hk-stolen-key"}
        ) as answer:
            assert answer.status == 401
    entries = await it.audit()
    assert len(entries) == 30
    assert {(each["who"], each["result"], each["code"]) for each in entries} == {
        ("nobody", "refused", "invalid_api_key")
    }
    await it.ask("DELETE", "/helios/v1/aliases/none", status=404)
    await it.world.journal.flushed()
    last = (await it.world.journal.read(kinds=("audit",)))[-1]
    assert "10 more refusals" in last.message
    assert "hk-stolen-key" not in str(entries)


async def test_bodies_and_reasons_are_audited_without_secrets(it: Operated) -> None:
    body = {"source": "hub", "location": "https://me:pw@hub/x", "ref": "me/z", "token": "hf_aaaaaaaaaa"}
    reason = {"X-Helios-Reason": "with hk-aaaaaaaaaaaa"}
    await it.ask("POST", "/helios/v1/models", body, status=400, headers=reason)
    entry = (await it.audit())[-1]
    assert entry["body"] == {**body, "location": "https://***hub/x", "token": "***"}
    assert entry["why"] == "with ***"


async def test_the_audit_can_begin_later(it: Operated) -> None:
    await it.ask("PUT", "/helios/v1/aliases/x", {"ref": "me/a"})
    [first] = await it.audit()
    await it.ask("PUT", "/helios/v1/aliases/y", {"ref": "me/a"})
    await it.audit()
    later = await it.ask("GET", f"/helios/v1/audit?since={first['at'] + 1e-4:.6f}")
    assert [each["what"] for each in later["entries"]] == ["PUT /helios/v1/aliases/y"]
    await it.ask("GET", "/helios/v1/audit?since=yesterday", status=400)
