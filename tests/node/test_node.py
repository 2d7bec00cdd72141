"""The node carries requests through: leased, swapped, refused with the arithmetic, and always given back."""

import asyncio
import json
from pathlib import Path

import pytest

from heliosd.core.claim import Claim
from heliosd.core.lifecycle import State
from heliosd.core.messages import Grant, Hold, Priority
from heliosd.core.names import ModelRef, ReplicaId
from heliosd.engines.simulated import SimulatedEngine
from heliosd.errors import CannotFit, EngineFailed, NotFound, Unavailable
from heliosd.lease import LocalLease, PeerLease
from heliosd.replay import read, replay
from heliosd.store.stored import Addition
from tests.node.world import World, world, write_model

BIG = {"kv_cache": "50GiB", "max_model_len": 2048}


async def ask(here: World, ref: ModelRef) -> str:
    async with here.node.lease(here.node.new_ticket(), ref) as lease:
        assert isinstance(lease, LocalLease)
        return lease.replica


async def test_a_request_starts_its_model_and_the_next_one_shares_it(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/one", alias="one")
        assert await ask(here, ref) == await ask(here, ModelRef("one")) == "r1"
        version = -1
        while (replica := here.node.snapshot().replicas[0]).leases:
            version = await here.node.changed(version)
        assert replica.state is State.READY
        assert replica.measured is not None
        assert await here.kinds_noted("org/one") == ["start", "hold", "ready", "grant", "grant"]


async def test_an_alias_works_at_once_also_while_the_model_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/one")
        assert await ask(here, ref) == "r1"
        await here.store.set_alias("two", ref)
        async with here.node.lease(here.node.new_ticket(), ModelRef("two")) as lease:
            assert isinstance(lease, LocalLease)
            assert (lease.replica, lease.model) == ("r1", "org/one")
        await here.store.remove_alias("two")
        with pytest.raises(NotFound):
            await ask(here, ModelRef("two"))


async def test_two_models_that_do_not_fit_together_take_turns(tmp_path: Path) -> None:
    stops = {"pool.sleep": "false", "pool.residence_s": "0"}
    async with world(tmp_path, models={"org/a": BIG, "org/b": BIG}, settings=stops) as here:
        a, b = await here.add("org/a"), await here.add("org/b")
        replicas = [await ask(here, ref) for _ in range(5) for ref in (a, b)]
        assert replicas == [f"r{number}" for number in range(1, 11)]
        await here.node.stop("org/b")
        (account,) = here.node.snapshot().devices
        assert account.promised.total_bytes == 0
        (reading,) = await here.devices.read({})
        assert reading.used_bytes == 0


async def test_what_nobody_has_is_told_with_what_is_near(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.add("org/SmolLM2-135M")
        with pytest.raises(NotFound, match="did you mean org/SmolLM2-135M") as caught:
            await ask(here, ModelRef("smollm2-135"))
        assert caught.value.code == "model_not_found"


async def test_what_can_never_fit_is_refused_with_the_arithmetic(tmp_path: Path) -> None:
    async with world(tmp_path, models={"org/huge": {"kv_cache": "100GiB"}}) as here:
        huge = await here.add("org/huge")
        with pytest.raises(CannotFit, match=r"needs 10\d\.\d GiB .* the largest here offers 78\.4 GiB"):
            await ask(here, huge)
        judged = await here.node.judge(huge)
        assert judged.verdict == "never_fits"


async def test_a_failed_start_brings_the_engines_own_words(tmp_path: Path) -> None:
    refuses = {"engine_args": {"refuses": "CUDA error: out of memory"}}
    async with world(tmp_path, models={"org/bad": refuses}) as here:
        bad = await here.add("org/bad")
        with pytest.raises(EngineFailed) as caught:
            await ask(here, bad)
        assert caught.value.cause == "CUDA error: out of memory"
        assert not here.node.snapshot().replicas


async def test_a_damaged_model_is_an_engine_that_failed(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/one")
        blobs = [file for file in (tmp_path / "store" / "blobs").rglob("*") if file.is_file()]
        for blob in blobs:
            await asyncio.to_thread(blob.unlink)
        with pytest.raises(EngineFailed):
            await ask(here, ref)


async def test_a_database_that_fails_at_a_start_fails_the_start_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/one")
        await here.node._demands.of(ref)  # remembered: only the start asks the database
        await here.database.run(lambda db: db.execute("alter table revisions rename to lost"))
        with pytest.raises(EngineFailed, match="no such table: revisions"):
            await here.node.load(ref)
        await here.database.run(lambda db: db.execute("alter table lost rename to revisions"))
        assert here.node.accepting


async def test_clients_that_leave_while_a_model_loads_leave_nothing_behind(tmp_path: Path) -> None:
    never = {"engine_args": {"never_ready": True}}
    async with world(tmp_path, models={"org/slow": never}) as here:
        slow = await here.add("org/slow")
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(ask(here, slow)) for _ in range(5)]
            version = -1
            while len(here.node.snapshot().waiting) < 5:
                version = await here.node.changed(version)
            for task in asking:
                task.cancel()
        while here.node.snapshot().waiting:
            version = await here.node.changed(version)
        assert await here.node.stop("org/slow") == ("r1",)
        assert not here.node.snapshot().replicas


async def test_a_request_that_waits_too_long_is_told_what_it_waited_for(tmp_path: Path) -> None:
    never = {"engine_args": {"never_ready": True}}
    async with world(tmp_path, models={"org/slow": never}) as here:
        slow = await here.add("org/slow")
        with pytest.raises(Unavailable, match="r1 is starting") as caught:
            async with here.node.lease(here.node.new_ticket(), slow, deadline_s=0.01):
                pass
        assert caught.value.code == "queue_timeout"


async def test_a_start_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    never = {"engine_args": {"never_ready": True}}
    async with world(tmp_path, models={"org/slow": never}) as here:
        slow = await here.add("org/slow")
        here.node._pool._start_timeout_s = 0.01
        with pytest.raises(EngineFailed) as caught:
            await ask(here, slow)
        assert "not ready after" in str(caught.value.cause)


async def test_load_judge_and_stop(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/one", alias="one")
        assert (await here.node.judge(ref)).verdict == "fits"
        assert await here.node.load(ref) == "r1"
        assert (await here.node.judge(ref)).verdict == "ready"
        assert await here.node.stop("one") == ("r1",)
        with pytest.raises(NotFound, match="no replica"):
            await here.node.stop("one")


async def test_what_was_measured_is_the_next_estimate(tmp_path: Path) -> None:
    async with world(tmp_path, settings={"devices.read_interval_s": "0.05"}) as here:
        ref = await here.add("org/one")
        before = await here.node.judge(ref)
        await here.node.load(ref)
        version = -1
        while (after := await here.node.judge(ref)).notes:
            version = await here.node.changed(version)
        assert before.per_device.overhead_bytes > after.per_device.overhead_bytes
        assert 2**28 <= after.per_device.overhead_bytes <= 1.3 * 2**28, "what was measured, and a margin"
        assert (await here.node.judge(ref, max_num_seqs=3)).notes, "measured with other settings"


async def test_an_idle_model_is_stopped_after_its_keep_alive(tmp_path: Path) -> None:
    stops = {"pool.sleep": "false"}
    async with world(tmp_path, models={"org/brief": {"keep_alive_s": 0.01}}, settings=stops) as here:
        await ask(here, await here.add("org/brief"))
        version = -1
        while here.node.snapshot().replicas:
            version = await here.node.changed(version)


async def test_a_draining_node_serves_to_the_end_and_takes_nobody_new(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/one")
        async with asyncio.TaskGroup() as tasks:
            async with here.node.lease(here.node.new_ticket(), ref):
                draining = tasks.create_task(here.node.drain(5.0))
                while here.node.accepting:
                    await here.node.changed(-1)
                    await asyncio.sleep(0)
                with pytest.raises(Unavailable) as caught:
                    await ask(here, ref)
                assert caught.value.code == "draining"
                assert not draining.done()
            await draining
        assert not here.node.snapshot().replicas


async def test_a_model_that_only_a_peer_holds_is_passed_on_once(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.node.peers_changed({"b": frozenset({"org/far"})})  # type: ignore[dict-item]
        async with here.node.lease(here.node.new_ticket(), ModelRef("org/far")) as lease:
            assert isinstance(lease, PeerLease)
            assert lease.peer == "b"
        with pytest.raises(NotFound):
            async with here.node.lease(here.node.new_ticket(), ModelRef("org/far"), forwarded=True):
                pass


async def test_an_engine_that_dies_is_replaced_by_the_next_request(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/one")
        assert await ask(here, ref) == "r1"
        engine = here.node.engine(here.node.snapshot().replicas[0].id)
        engine.die("killed by signal 9")  # type: ignore[union-attr]
        version = -1
        while here.node.snapshot().replicas:
            version = await here.node.changed(version)
        assert await ask(here, ref) == "r2"
        assert "exited" in await here.kinds_noted("r1")


async def test_a_grant_whose_engine_has_just_ended_names_the_replica(tmp_path: Path) -> None:
    never = {"engine_args": {"never_ready": True}}
    async with world(tmp_path, models={"org/slow": never}) as here:
        ref, ticket = await here.add("org/slow"), here.node.new_ticket()
        with pytest.raises(EngineFailed, match="cannot use r7 of org/slow: it has just ended") as caught:
            told = lambda hold: here.node._loop._answers.give(Grant(hold.ticket, ReplicaId("r7"), ""))  # noqa: E731
            async with here.node.lease(ticket, ref, told=told):
                raise AssertionError("there is no such engine")
        assert caught.value.replica == "r7"
        await here.node.stop("org/slow")


async def test_who_asks_before_the_devices_are_known_is_held(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/one")
        here.node._devices_known.clear()
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(ask(here, ref))
            await asyncio.sleep(0)
            assert not asking.done()
            here.node._devices_known.set()
        assert asking.result() == "r1"


async def test_a_replica_that_waits_for_its_turn_to_start_can_be_stopped(tmp_path: Path) -> None:
    never = {"engine_args": {"never_ready": True}}
    async with world(tmp_path, models={"org/slow": never}) as here:
        slow, other = await here.add("org/slow"), await here.add("org/other")
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(ask(here, ref)) for ref in (slow, other)]
            version = -1
            while len(here.node.snapshot().replicas) < 2:
                version = await here.node.changed(version)
            for task in asking:
                task.cancel()
        assert await here.node.stop("org/other") == ("r2",)
        assert [replica.model for replica in here.node.snapshot().replicas] == ["org/slow"]


async def test_what_the_scheduler_was_told_replays_to_the_same_commands(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        one, two = await here.add("org/one"), await here.add("org/two")
        for ref in (one, two, one):
            await ask(here, ref)
        await here.node.stop("org/one")
        await here.recording.flushed()
        outcome = replay(read(tmp_path / "recording"))
    assert outcome.differences == [] and outcome.segments == 1
    assert outcome.events > 10 and outcome.commands > 8


async def test_who_waits_is_told_and_seen_on_its_terms_and_leaves_no_trace(tmp_path: Path) -> None:
    slow = {"engine_args": {"never_ready": True}, "priority": "high"}
    told: asyncio.Queue[Hold] = asyncio.Queue()
    async with world(tmp_path, models={"org/slow": slow}) as here:
        ref = await here.add("org/slow", alias="slow")
        ticket, claim = here.node.new_ticket(), Claim("key_1", 2.0, work_tokens=7)

        async def wait() -> None:
            async with here.node.lease(ticket, ModelRef("slow"), claim=claim, told=told.put_nowait):
                raise AssertionError("it is never ready")

        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(wait())
            hold = await told.get()
            assert (hold.ticket, hold.reason) == (ticket, "r1 is starting")
            (entry,) = here.node.snapshot().waiting
            assert (entry.ticket, entry.key, entry.priority) == (ticket, "key_1", Priority.HIGH)
            assert (entry.position, entry.reason) == (hold.position, hold.reason)
            waiting.cancel()
        version = -1
        while here.node.snapshot().waiting:
            version = await here.node.changed(version)
        assert await here.kinds_noted(ticket) == ["hold", "released"]
        await here.node.stop(str(ref))


async def test_a_deadline_only_shortens_the_wait(tmp_path: Path) -> None:
    models = {"org/slow": {"engine_args": {"never_ready": True}}}
    async with world(tmp_path, models=models, settings={"queue.timeout_s": 0.01}) as here:
        slow = await here.add("org/slow")
        with pytest.raises(Unavailable, match="waited 0 s") as caught:
            async with here.node.lease(here.node.new_ticket(), slow, deadline_s=1e9):
                pass
        assert (caught.value.code, caught.value.retry_after_s) == ("queue_timeout", None)
        await here.node.stop("org/slow")


async def test_a_step_that_was_shortened_to_fit_reaches_the_engine(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        folder = await asyncio.to_thread(write_model, tmp_path / "wide", "wide")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 4_000_000}))
        await here.store.add(Addition("directory", str(folder), ModelRef("wide")), lambda progress: None)
        judged = await here.node.judge(ModelRef("wide"))
        assert judged.verdict == "fits"
        assert any("max_num_batched_tokens 8192 -> " in note for note in judged.notes)
        replica = await ask(here, ModelRef("wide"))
        engine = here.node.engine(ReplicaId(replica))
        assert isinstance(engine, SimulatedEngine)
        assert engine.spec.engine_args["max_num_batched_tokens"] in (2048, 4096)
