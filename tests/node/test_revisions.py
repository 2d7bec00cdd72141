"""A model changes, goes back or goes away while replicas of it run: what they serve is served to its end."""

import asyncio
from pathlib import Path

import pytest

from heliosd.core.names import ModelRef, ReplicaId, kept_ref
from heliosd.errors import NotFound
from heliosd.lease import LocalLease
from heliosd.store.stored import Addition, StoredModel
from tests.node.world import World, world, write_model

ONE = ModelRef("org/one")
SMALL = {"org/one": {"kv_cache": "1GiB", "max_model_len": 2048}}


async def version(here: World, tag: str) -> StoredModel:
    folder = await asyncio.to_thread(write_model, here.folder / tag, tag)
    return await here.store.add(Addition("directory", str(folder), ONE), lambda progress: None)


async def ask(here: World, ref: ModelRef = ONE) -> tuple[ReplicaId, str]:
    """The replica that serves, and the revision that it runs."""
    async with here.node.lease(here.node.new_ticket(), ref) as lease:
        assert isinstance(lease, LocalLease)
        return lease.replica, revision_of(here, lease.replica)


def revision_of(here: World, replica: ReplicaId) -> str:
    return next(each.revision for each in here.node.snapshot().replicas if each.id == replica)


async def gone(path: Path) -> None:
    async with asyncio.timeout(30):
        while path.exists():  # noqa: ASYNC110 - tidied up in the node's own time, which nobody tells
            await asyncio.sleep(0)


async def test_an_update_and_the_way_back(tmp_path: Path) -> None:
    async with world(tmp_path, models=SMALL) as here:
        old = await version(here, "old")
        first, runs = await ask(here)
        assert runs == old.revision
        new = await version(here, "new")
        second, runs = await ask(here)
        assert runs == new.revision
        assert second != first
        await here.store.move(ONE)
        assert await ask(here) == (first, old.revision), "it still runs"
        await here.store.move(ONE)
        assert await ask(here) == (second, new.revision)


async def test_going_back_ends_no_request(tmp_path: Path) -> None:
    """Both do not fit at once: the one that has to go serves on until its lease is over."""
    whole = {"org/one": {"kv_cache": "60GiB", "max_model_len": 2048}}
    async with world(tmp_path, models=whole, settings={"pool.sleep": "false"}) as here:
        old = await version(here, "old")
        new = await version(here, "new")
        async with here.node.lease(here.node.new_ticket(), ONE) as lease:
            assert isinstance(lease, LocalLease)
            assert revision_of(here, lease.replica) == new.revision
            await here.store.move(ONE)
            tasks = asyncio.TaskGroup()
            async with tasks, asyncio.timeout(30):
                asking = tasks.create_task(ask(here))
                await waiting(here)
                assert here.node.engine(lease.replica) is lease.engine, "it serves on"
                asking.cancel()
        assert (await ask(here))[1] == old.revision


async def waiting(here: World) -> None:
    number = -1
    while not here.node.snapshot().waiting:
        number = await here.node.changed(number)


async def test_a_revision_is_served_by_its_digest(tmp_path: Path) -> None:
    async with world(tmp_path, models=SMALL) as here:
        old, new = await version(here, "old"), await version(here, "new")
        name = kept_ref(ONE, old.revision)
        async with here.node.lease(here.node.new_ticket(), ModelRef("org/one", old.revision[:8])) as lease:
            assert isinstance(lease, LocalLease)
            assert (lease.model, revision_of(here, lease.replica)) == (str(name), old.revision)
        replica, runs = await ask(here)
        assert runs == new.revision
        assert await ask(here, kept_ref(ONE, new.revision)) == (replica, runs), "what it means now is the model itself"
        booked = {each.model: each.promised.kv_cache_bytes for each in here.node.snapshot().replicas}
        assert booked[str(name)] == booked["org/one"], "its settings are the model's"


async def test_a_model_removed_while_it_serves(tmp_path: Path) -> None:
    async with world(tmp_path, models=SMALL) as here:
        model = await version(here, "old")
        served = tmp_path / "store" / "revisions" / model.revision
        async with here.node.lease(here.node.new_ticket(), ONE) as first:
            assert isinstance(first, LocalLease)
            async with here.node.lease(here.node.new_ticket(), ONE) as second:
                assert isinstance(second, LocalLease)
                await here.store.remove(ONE)
                with pytest.raises(NotFound):
                    await ask(here)
                assert here.node.engine(first.replica) is first.engine is second.engine
                assert await asyncio.to_thread((served / "model.safetensors").read_bytes)
                plan = await here.store.garbage({model.revision: [first.replica]})
                assert [item.why for item in plan.stays] == [f"of a removed model, in use by {first.replica}"]
                await here.store.collect(plan)
            assert await asyncio.to_thread((served / "model.safetensors").read_bytes)
        await here.node.stop(first.replica)
        await gone(served)
        assert (await here.store.garbage({})).goes == ()


async def test_gc_leaves_what_runs(tmp_path: Path) -> None:
    async with world(tmp_path, models=SMALL) as here:
        oldest = await version(here, "oldest")
        served = tmp_path / "store" / "revisions" / oldest.revision
        replica, _ = await ask(here)
        await version(here, "older")
        await version(here, "new")
        await here.store.collect(await here.store.garbage({}))
        assert await asyncio.to_thread((served / "model.safetensors").read_bytes)
        await here.node.stop(replica)
        while not (plan := await here.store.garbage({})).goes:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        assert [item.name for item in plan.goes] == [str(kept_ref(ONE, oldest.revision))]
        await here.store.collect(plan)
        await gone(served)
