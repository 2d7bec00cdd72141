"""A model that is cut into stages: by the configuration, or because ranks cannot share it."""

import json
from pathlib import Path

import pytest

from heliosd.core.names import ModelRef, ReplicaId
from heliosd.engines.simulated import SimulatedEngine
from heliosd.errors import BadRequest
from heliosd.lease import LocalLease
from tests.node.world import World, world

NEAR = '[[device]]\nname = "g"\ncount = 4\ncapacity = "80GiB"\nnvlink = true\n'
FAR = '[[device]]\nname = "g"\ncount = 4\ncapacity = "80GiB"\n'


async def started(here: World, ref: ModelRef) -> SimulatedEngine:
    async with here.node.lease(here.node.new_ticket(), ref) as lease:
        assert isinstance(lease, LocalLease)
        engine = here.node.engine(ReplicaId(lease.replica))
        assert isinstance(engine, SimulatedEngine)
        return engine


async def start_reason(here: World) -> str:
    await here.journal.flushed()
    (reason,) = [entry.message for entry in await here.journal.read(subject="org/m") if entry.kind == "start"]
    return reason


async def test_stages_that_are_asked_for_reach_the_engine_the_estimate_and_the_ledger(tmp_path: Path) -> None:
    own = {"tensor_parallel": 2, "pipeline_parallel": 2, "kv_cache": "1GiB"}
    async with world(tmp_path, models={"org/m": own}, fleet=NEAR) as here:
        ref = await here.add("org/m")
        judged = await here.node.judge(ref)
        assert (judged.device_count, len(judged.accounts), judged.verdict) == (4, 2, "fits")
        assert {each.kv_cache.likely_bytes for each in judged.accounts} == {2**30}, "each stage is given as much"
        assert judged.per_device.weights_bytes == max(each.weights.likely_bytes for each in judged.accounts)
        engine = await started(here, ref)
        assert (engine.spec.pipeline_parallel, len(engine.spec.devices)) == (2, 4)
        held = here.node.snapshot().devices
        assert all(account.promised.kv_cache_bytes >= 2**30 for account in held)
        assert "NVLink -> " in await start_reason(here)
        version = -1
        while not (kept := await here.records.loads()):
            version = await here.node.changed(version)
        assert kept[0].asked.tensor_parallel == 2
        assert json.loads(kept[0].asked.arguments)["pipeline_parallel"] == 2


async def test_links_that_are_too_slow_cut_a_model_into_stages_and_the_reason_is_told(tmp_path: Path) -> None:
    async with world(tmp_path, models={"org/m": {"tensor_parallel": 2}}, fleet=FAR) as here:
        ref = await here.add("org/m")
        judged = await here.node.judge(ref)
        why = "too slow for 2 tensor ranks is the best link here: g0+g1, same NUMA node"
        assert f"cut into 2 pipeline stages of one device each: {why}" in judged.notes
        engine = await started(here, ref)
        assert (engine.spec.pipeline_parallel, len(engine.spec.devices)) == (2, 2)
        assert f"({why})" in await start_reason(here)


async def test_one_stage_that_is_asked_for_stays_one(tmp_path: Path) -> None:
    one = {"tensor_parallel": 2, "pipeline_parallel": 1}
    async with world(tmp_path, models={"org/m": one}, fleet=FAR) as here:
        engine = await started(here, await here.add("org/m"))
        assert (engine.spec.pipeline_parallel, len(engine.spec.devices)) == (1, 2)


async def test_more_stages_than_layers_are_refused_with_both_numbers(tmp_path: Path) -> None:
    async with world(tmp_path, models={"org/m": {"pipeline_parallel": 3}}, fleet=NEAR) as here:
        with pytest.raises(BadRequest, match="each of 3 pipeline stages one of 2 layers: set pipeline_parallel to at"):
            await started(here, await here.add("org/m"))
