"""Adapters on a node: served by their base's replica, read once, held while an engine may read them."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest

from heliosd.adapters import Adapters
from heliosd.core.adapters import AdapterRoom
from heliosd.core.names import Digest, ModelRef, ReplicaId
from heliosd.engines.engine import Engine
from heliosd.errors import BadRequest, EngineFailed, NotFound
from heliosd.lease import LocalLease
from heliosd.store.stored import Addition, StoredModel
from heliosd.telemetry.metrics import Metrics
from tests.engines.answers import ask as ask_engine
from tests.node.world import World, world
from tests.store.models import adapter_files, write_folder


async def add_adapter(here: World, name: str, base: str = "org/m", rank: int = 8, seed: int = 0) -> StoredModel:
    folder = await asyncio.to_thread(write_folder, here.folder / f"{name}-{seed}", adapter_files(base, rank, seed))
    return await here.store.add(Addition("directory", str(folder), ModelRef(name)), lambda progress: None)


async def ask(here: World, ref: ModelRef) -> LocalLease:
    async with here.node.lease(here.node.new_ticket(), ref) as lease:
        assert isinstance(lease, LocalLease)
        return lease


def digests(stored: StoredModel) -> set[Digest]:
    return {file.digest for file in stored.manifest.files}


async def words(engine: Engine, model: str) -> tuple[str, str]:
    answer = await ask_engine(engine, "/v1/completions", {"model": model, "prompt": "speak", "max_tokens": 5})
    return answer.json["model"], answer.json["choices"][0]["text"]


async def test_base_and_adapters_are_served_by_one_replica(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        base = await here.add("org/m")
        await add_adapter(here, "poet")
        await add_adapter(here, "clerk", seed=1)
        leases = [await ask(here, ref) for ref in (base, ModelRef("poet"), ModelRef("clerk"), ModelRef("poet"))]
        assert {lease.replica for lease in leases} == {"r1"}
        assert [lease.model for lease in leases] == ["org/m", "poet", "clerk", "poet"]
        said = {await words(leases[0].engine, name) for name in ("org/m", "poet", "clerk")}
        assert {model for model, _ in said} == {"org/m", "poet", "clerk"}
        assert len({text for _, text in said}) == 3
        assert (await here.kinds_noted("poet")).count("adapter") == 1, "read twice"


async def test_requests_at_once_read_it_once(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.add("org/m")
        await add_adapter(here, "poet")
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask(here, ModelRef("poet"))) for _ in range(8)]
        assert {task.result().replica for task in asked} == {"r1"}
        assert (await here.kinds_noted("poet")).count("adapter") == 1


async def test_a_replica_without_room_gives_way_to_one_with(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        base = await here.add("org/m")
        async with here.node.lease(here.node.new_ticket(), base) as old:
            assert isinstance(old, LocalLease)
            await add_adapter(here, "poet")
            new = await ask(here, ModelRef("poet"))
            assert (old.replica, new.replica) == ("r1", "r2"), "who is served must be served to the end"
        assert (await ask(here, base)).replica == "r2", "the base has an engine of its own"
        await add_adapter(here, "clerk", seed=1)
        assert (await ask(here, ModelRef("clerk"))).replica == "r2", "one more of the same rank needs no other engine"
        await add_adapter(here, "sage", rank=64)
        assert (await ask(here, ModelRef("sage"))).replica == "r3"


async def test_content_that_was_exchanged_is_read_again(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.add("org/m")
        first = await add_adapter(here, "poet")
        await ask(here, first.ref)
        second = await add_adapter(here, "poet", seed=1)
        assert first.revision != second.revision
        await ask(here, first.ref)
        assert (await here.kinds_noted("poet")).count("adapter") == 2
        assert digests(first) | digests(second) <= here.store._blobs.held, "requests under way may use the older"


async def test_what_an_engine_could_read_is_let_go_at_its_end(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.add("org/m")
        poet = await add_adapter(here, "poet")
        engine = (await ask(here, poet.ref)).engine
        adapters = Adapters(here.store, here.journal, Metrics(), here.node.now)
        other, replica = await add_adapter(here, "other", seed=1), ReplicaId("elsewhere")
        async with adapters.of(replica):
            await adapters.bring(replica, engine, other)
            assert digests(other) <= here.store._blobs.held
        assert not (digests(other) - digests(poet)) & here.store._blobs.held
        with pytest.raises(EngineFailed, match="it has just ended"):
            await adapters.bring(replica, engine, other)


class Ending:
    """An engine whose replica ends while it reads an adapter, or that does not take it."""

    def __init__(self, ending: AsyncExitStack, failure: EngineFailed | None = None) -> None:
        self.ending = ending
        self.failure = failure

    async def load_adapter(self, name: str, directory: Path) -> None:
        await self.ending.aclose()
        if self.failure is not None:
            raise self.failure


async def test_nothing_stays_held_for_an_engine_that_ended_or_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as here, AsyncExitStack() as life:
        await here.add("org/m")
        poet = await add_adapter(here, "poet")
        adapters = Adapters(here.store, here.journal, Metrics(), here.node.now)
        await life.enter_async_context(adapters.of(ReplicaId("r9")))
        refusing = Ending(AsyncExitStack(), EngineFailed("cannot use it"))
        with pytest.raises(EngineFailed, match="cannot use it"):
            await adapters.bring(ReplicaId("r9"), cast(Engine, refusing), poet)
        with pytest.raises(EngineFailed, match="it has just ended"):
            await adapters.bring(ReplicaId("r9"), cast(Engine, Ending(life)), poet)
        assert not digests(poet) & here.store._blobs.held


async def test_a_removed_adapter_is_unknown_at_once_and_readable_to_its_engine(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        base = await here.add("org/m")
        poet = await add_adapter(here, "poet")
        await ask(here, poet.ref)
        await here.store.remove(poet.ref)
        with pytest.raises(NotFound):
            await ask(here, poet.ref)
        assert digests(poet) <= here.store._blobs.held
        assert await here.node.load(base) == "r2", "nobody needs the room any more"


async def test_an_adapter_that_its_engine_refuses_leaves_the_engine_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        base = await here.add("org/m")
        poet = await add_adapter(here, "poet")
        engine = (await ask(here, base)).engine
        with pytest.raises(EngineFailed, match=r"no adapter_config\.json") as caught:
            await engine.load_adapter("poet", tmp_path)
        assert caught.value.code == "adapter_refused"
        assert (await ask(here, poet.ref)).replica == "r1"


async def test_what_the_operator_sets_decides(tmp_path: Path) -> None:
    off = {"engine_args": {"enable_lora": False}}
    low = {"engine_args": {"max_lora_rank": 8, "max_loras": 2}}
    async with world(tmp_path, models={"org/off": off, "org/low": low}) as here:
        for name in ("org/off", "org/low"):
            await here.add(name)
        await add_adapter(here, "a", "org/off")
        with pytest.raises(BadRequest, match="its base org/off set enable_lora = false") as caught:
            await ask(here, ModelRef("a"))
        assert caught.value.code == "no_adapter_room"
        assert (await ask(here, ModelRef("org/off"))).replica == "r1"
        await add_adapter(here, "b", "org/low")
        assert (await ask(here, ModelRef("b"))).replica == "r2"
        await add_adapter(here, "c", "org/low", rank=16)
        with pytest.raises(BadRequest, match="max_lora_rank = 8, and its rank is 16"):
            await ask(here, ModelRef("c"))
        assert (await ask(here, ModelRef("b"))).replica == "r2"


async def test_an_adapter_is_estimated_with_its_base(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        base = await here.add("org/m")
        alone = await here.node.judge(base)
        poet = await add_adapter(here, "poet")
        both = await here.node.judge(poet.ref)
        assert (both.model, both.verdict) == ("poet", "fits")
        # Two matrices of rank 16 for each projection and each end of the vocabulary, four times, in bfloat16.
        ends = 2 * (1000 + 64)
        layers = 2 * (128 + 96 + 96 + 128)
        more = both.accounts[0].weights.likely_bytes - alone.accounts[0].weights.likely_bytes
        assert more >= 4 * 16 * 2 * (ends + layers)
        assert both.per_device.total_bytes > alone.per_device.total_bytes
        assert any("an adapter of org/m" in note and str(AdapterRoom(4, 16)) in note for note in both.notes)
        assert (await here.node.judge(base)).per_device == both.per_device
        await here.node.load(base)
        assert (await here.node.judge(poet.ref)).verdict == "ready"


async def test_measurements_with_and_without_room_are_kept_apart(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        base = await here.add("org/m")
        bare = await here.node._demands.of(base)
        await add_adapter(here, "poet")
        roomy = await here.node._demands.of(base)
        assert bare is not None and roomy is not None
        assert bare.demand.arguments != roomy.demand.arguments
        assert roomy.demand.adapters == AdapterRoom(4, 16)


async def test_stopping_an_adapter_names_its_base(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.add("org/m")
        poet = await add_adapter(here, "poet")
        await ask(here, poet.ref)
        with pytest.raises(NotFound, match="served by the replicas of org/m"):
            await here.node.stop("poet")
