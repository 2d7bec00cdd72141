"""Revisions listed, gone back to and compared, and garbage collected, over the API and a real store."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heliosd.core.names import kept_ref
from heliosd.store.store import Store
from heliosd.store.stored import StoredModel
from heliosd.wire import DifferenceView, GarbageView, ModelDetail, RevisionList, RolledBack
from tests.api.test_models import events
from tests.api.world import MemoryEngine, World, world
from tests.store.conftest import open_store
from tests.store.models import model_files, write_folder
from tests.store.test_history import M, add, versions

__all__ = ["open_store"]


@pytest.fixture
async def it(open_store: Any) -> AsyncIterator[World]:
    async with open_store() as store, world(real=store) as it:
        yield it


@pytest.fixture
async def models(it: World, tmp_path: Path) -> list[StoredModel]:
    return await versions(real(it), tmp_path, 3)


def real(it: World) -> Store:
    assert isinstance(it.parts.store, Store)
    return it.parts.store


async def asked(it: World, method: str, path: str, status: int = 200, **body: object) -> Any:
    async with it.local.request(method, f"/helios/v1/{path}", json=body or None) as response:
        content = await response.json()
        assert response.status == status, content
        return content


async def notes(it: World, kind: str) -> list[str]:
    await it.journal.flushed()
    return [entry.message for entry in await it.journal.read() if entry.kind == kind]


async def test_the_revisions_of_a_model(it: World, models: list[StoredModel]) -> None:
    found = RevisionList.model_validate(await asked(it, "GET", "models/org/m/revisions"))
    assert (found.model, found.keep) == ("org/m", 2)
    assert [each.revision for each in found.revisions] == [model.revision for model in reversed(models)]
    assert [(each.current, each.kept) for each in found.revisions] == [(True, True), (False, True), (False, False)]
    first = found.revisions[0]
    assert first.size_bytes == first.own_bytes + first.shared_bytes == models[2].manifest.size_bytes
    error = await asked(it, "GET", "models/no/body/revisions", 404)
    assert error["error"]["code"] == "model_not_found"


async def test_an_old_revision_is_shown_by_its_digest(it: World, models: list[StoredModel]) -> None:
    ref = kept_ref(M, models[0].revision)
    shown = ModelDetail.model_validate(await asked(it, "GET", f"models/{ref}"))
    assert (shown.ref, shown.revision) == (str(ref), models[0].revision)


async def test_back_and_its_note(it: World, models: list[StoredModel]) -> None:
    done = RolledBack.model_validate(await asked(it, "POST", "models/org/m/rollback", to=models[0].revision[:8]))
    assert (done.model, done.before, done.revision) == ("org/m", models[2].revision, models[0].revision)
    assert await notes(it, "model") == [
        f"org/m means revision {models[0].revision[:12]} again, no longer {models[2].revision[:12]}"
    ]
    for to, status, code in (("zz", 400, "bad_request"), ("0" * 8, 404, "revision_not_found")):
        error = await asked(it, "POST", "models/org/m/rollback", status, to=to)
        assert error["error"]["code"] == code
    error = await asked(it, "POST", "models/org/m/rollback", 409, to=models[0].revision)
    assert error["error"]["code"] == "conflict"


async def test_what_differs_is_told_with_progress(it: World, models: list[StoredModel]) -> None:
    async with it.local.post("/helios/v1/store/diff", json={"model": "org/m"}) as response:
        told = events(await response.text())
    assert told[0][0] == "progress"
    assert told[0][1]["phase"] == "compare"
    found = DifferenceView.model_validate(told[-1][1])
    assert (found.before, found.after) == tuple(str(kept_ref(M, each.revision)) for each in models[1:])
    assert [(each.name, each.change) for each in found.tensors] == [("model.embed_tokens.weight", "bytes")]
    async with it.local.post("/helios/v1/store/diff", json={"model": "nobody"}) as response:
        [(name, error)] = events(await response.text())
    assert (name, error["error"]["code"]) == ("error", "model_not_found")


async def test_garbage_is_planned_then_collected(it: World, models: list[StoredModel]) -> None:
    planned = GarbageView.model_validate(await asked(it, "POST", "store/gc", dry_run=True))
    assert [(each.kind, each.name) for each in planned.goes] == [("revision", str(kept_ref(M, models[0].revision)))]
    assert planned.freed_bytes > 0
    assert await notes(it, "gc") == []
    done = GarbageView.model_validate(await asked(it, "POST", "store/gc", dry_run=False))
    assert (done.goes, done.freed_bytes, done.dry_run) == (planned.goes, planned.freed_bytes, False)
    assert (await notes(it, "gc"))[0] == f"revision {planned.goes[0].name} went: {planned.goes[0].why}"
    async with it.http.get("/metrics") as response:
        assert f"helios_store_collected_bytes_total {float(done.freed_bytes)}" in await response.text()
    error = await asked(it, "POST", "store/gc", 400, interrupted_s=-1)
    assert error["error"]["code"] == "bad_request"


async def test_a_model_whose_old_revision_runs_is_not_removed(it: World, models: list[StoredModel]) -> None:
    it.node.engines[str(kept_ref(M, models[0].revision))] = MemoryEngine()
    error = await asked(it, "DELETE", "models/org/m", 409)
    assert error["error"]["code"] == "model_in_use"


async def test_store_bytes_count_what_is_kept(it: World, models: list[StoredModel], tmp_path: Path) -> None:
    weights = len(model_files()["model.safetensors"])
    async with it.http.get("/metrics") as response:
        text = await response.text()
    size_bytes = models[0].manifest.size_bytes + 2 * weights
    assert f" {float(size_bytes)}" in text
    await add(real(it), write_folder(tmp_path / "x", model_files(seed=0)))
    assert json.dumps(size_bytes) == str((await real(it).sizes())[1])
