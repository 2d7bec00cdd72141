"""What is asked of vLLM for a sleep and a wake, in which order, and what is made of its answers. Without vLLM."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from heliosd.core.messages import Footprint
from heliosd.core.oom import out_of_memory
from heliosd.engines import worker as worker_module
from heliosd.engines.engine import Slept
from heliosd.engines.pressure import Gauge
from heliosd.engines.vllm_engine import VllmEngine
from heliosd.errors import EngineFailed
from tests.engines.answers import spec


class Llm:
    """vLLM's side: writes down what it is asked, and answers as a worker that holds `device_bytes`."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.model_config = SimpleNamespace(enable_sleep_mode=True)
        self.vllm_config = SimpleNamespace(lora_config=None)
        self.errored = False
        self.still_asleep = False
        self.breaks: dict[str, Exception] = {}
        self.device_bytes = 180

    def _ask(self, what: str, *details: Any) -> None:
        self.asked.append((what, *details))
        if what in self.breaks:
            raise self.breaks[what]

    async def sleep(self, level: int) -> None:
        self._ask("sleep", level)
        self.device_bytes = 20

    async def wake_up(self, tags: list[str] | None = None) -> bool:
        self._ask("wake_up", tags)
        self.device_bytes = 185
        return tags != ["weights"]

    async def collective_rpc(self, method: str) -> list[dict[str, Any]]:
        self._ask(method)
        return [{"weights_bytes": 100, "kv_cache_bytes": 50, "device_bytes": self.device_bytes, "host_bytes": 1 << 40}]

    async def check_health(self) -> None:
        self._ask("check_health")

    async def is_sleeping(self) -> bool:
        return self.still_asleep


@pytest.fixture
def llm() -> Llm:
    return Llm()


@pytest.fixture
def engine(llm: Llm, tmp_path: Path) -> VllmEngine:
    async def in_thread(work: Any) -> Any:
        return await asyncio.to_thread(work)

    engine = VllmEngine(spec(tmp_path, tmp_path), llm, None, Gauge(), None, in_thread)
    engine._processes = [psutil.Process(os.getpid())]
    return engine


async def test_from_level_1_all_is_woken_at_once(engine: VllmEngine, llm: Llm) -> None:
    assert engine.sleep_levels == {1, 2}
    assert await engine.sleep(1) == Slept(Footprint(0, 0, 20), 1 << 40)
    assert await engine.wake() == Footprint(100, 50, 35) == engine.footprint
    assert llm.asked == [("sleep", 1), ("helios_measure",), ("wake_up", None), ("check_health",), ("helios_measure",)]


async def test_from_level_2_weights_are_read_again_before_the_cache_takes_its_room(
    engine: VllmEngine, llm: Llm
) -> None:
    await engine.sleep(2)
    llm.asked.clear()
    await engine.wake()
    assert llm.asked[:3] == [("wake_up", ["weights"]), ("reload_weights",), ("wake_up", ["kv_cache"])]


async def test_an_engine_that_says_it_still_sleeps_has_not_woken(engine: VllmEngine, llm: Llm) -> None:
    await engine.sleep(1)
    llm.still_asleep = True
    with pytest.raises(EngineFailed, match="cannot wake m: vLLM says that it still sleeps"):
        await engine.wake()


async def test_its_words_are_kept_when_it_fails(engine: VllmEngine, llm: Llm) -> None:
    await engine.sleep(1)
    llm.breaks["wake_up"] = Exception("Call to wake_up method failed: CUDA Error: out of memory at cumem.cpp:1")
    with pytest.raises(EngineFailed, match="cannot wake m: Call to wake_up method failed") as failed:
        await engine.wake()
    assert out_of_memory(failed.value.cause or "") is not None
    assert out_of_memory(failed.value.message) is not None


async def test_started_without_sleep_mode_it_is_not_even_asked(engine: VllmEngine, llm: Llm) -> None:
    llm.model_config.enable_sleep_mode = False
    assert engine.sleep_levels == frozenset()
    with pytest.raises(
        EngineFailed, match="cannot put m to sleep at level 1: it was started without vLLM's sleep mode"
    ):
        await engine.sleep(1)
    assert llm.asked == []


async def test_with_room_for_adapters_it_never_forgets_its_weights(engine: VllmEngine, llm: Llm) -> None:
    llm.vllm_config.lora_config = object()
    assert engine.sleep_levels == frozenset({1})
    with pytest.raises(EngineFailed, match="at level 2: it can at 1"):
        await engine.sleep(2)
    assert llm.asked == []


class Worker:
    """As much of vLLM's worker as falls asleep and wakes: a device of 1000 bytes, of which it took 600."""

    def __init__(self) -> None:
        self.device = SimpleNamespace(type="cuda")
        self.model_runner = SimpleNamespace(kv_caches=[])
        self.free_bytes = 400

    def sleep(self, level: int = 1) -> None:
        self.free_bytes += 500

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.free_bytes -= 200 if tags == ["weights"] else 300 if tags else 500


class Measured(worker_module._measured(Worker)):  # type: ignore[misc]
    def _helios_free(self) -> int:
        return int(self.free_bytes)


async def test_what_others_take_meanwhile_is_not_counted_as_the_sleepers(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Measured()
    worker.helios_started_bytes = 600
    pinned = iter((0, 128))
    monkeypatch.setattr(worker_module, "_driver_bytes", lambda device: None)
    monkeypatch.setattr(worker_module, "_pinned_bytes", lambda: next(pinned))
    monkeypatch.setattr(worker_module, "_forget_pinned", lambda: None)
    assert worker.helios_measure()["device_bytes"] == 600
    worker.sleep(2)
    worker.free_bytes -= 450  # another engine starts
    assert worker.helios_measure()["device_bytes"] == 100
    assert worker.helios_measure()["host_bytes"] == 128
    worker.free_bytes += 450
    worker.wake_up(["weights"])
    worker.wake_up(["kv_cache"])
    assert worker.helios_measure()["host_bytes"] == 0
    assert worker.helios_measure()["device_bytes"] == 600


async def test_what_the_driver_says_is_believed_where_it_said_enough_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Measured()
    worker.helios_started_bytes, worker.helios_driver_tells = 600, True
    monkeypatch.setattr(worker_module, "_driver_bytes", lambda device: 640)
    assert worker.helios_measure()["device_bytes"] == 640
    worker.helios_driver_tells = False
    assert worker.helios_measure()["device_bytes"] == 600
