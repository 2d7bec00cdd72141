"""The end of an engine, whatever vLLM says to it; and the reason of a start that failed. Without vLLM itself."""

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from heliosd.engines import vllm, vllm_engine
from heliosd.engines.pressure import Gauge
from tests.engines.answers import alive, spec


class Launch:
    """A start that has brought up no process of its own."""

    def __init__(self) -> None:
        self.processes: list[Any] = []
        self.done: list[str] = []

    def call_off(self) -> None:
        self.done.append("called off")

    def clear_away(self) -> None:
        self.done.append("cleared away")


class Obstinate:
    """vLLM's side of an engine that does not end as it should."""

    def shutdown(self) -> None:
        raise RuntimeError("the socket is closed")


class JustEnded(psutil.Process):
    """Ends between the look at it and the kill."""

    def kill(self) -> None:
        super().kill()
        raise psutil.NoSuchProcess(self.pid)


async def test_stop_ends_every_process_whatever_fails_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "_WORKERS_LEAVE_S", 0.01)
    workers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    launch = Launch()
    with ThreadPoolExecutor(1) as pool:

        async def in_thread(work: Any) -> Any:
            return await asyncio.get_running_loop().run_in_executor(pool, work)

        engine = vllm_engine.VllmEngine(spec(tmp_path, tmp_path), Obstinate(), None, Gauge(), launch, in_thread)
        engine._processes = [JustEnded(workers[0].pid), psutil.Process(workers[1].pid)]
        await engine.stop()
    assert not any(alive(worker.pid) for worker in workers)
    assert launch.done == ["called off", "cleared away"]


@pytest.mark.parametrize(("trusted", "hinted"), [(False, True), (True, False)])
def test_a_model_with_code_of_its_own_that_fails_leads_to_the_switch(
    tmp_path: Path, trusted: bool, hinted: bool
) -> None:
    launch = SimpleNamespace(processes=[])
    wanted = spec(tmp_path, tmp_path, remote_code=True, trust_remote_code=trusted)
    failed = vllm._why_not(wanted, launch, ValueError("no such architecture"))
    assert ('[models."m"] trust_remote_code = true' in failed.message) is hinted
    assert failed.message.endswith("ValueError: no such architecture")
