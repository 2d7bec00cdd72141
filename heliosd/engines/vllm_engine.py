"""A running vLLM engine: what it holds, how it sleeps and wakes, how its end is noticed, and how it is ended."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from heliosd.core.gist import gist
from heliosd.core.messages import Footprint
from heliosd.core.metering import Tokens
from heliosd.engines.engine import LaunchSpec, Pressure, Slept
from heliosd.engines.footprint import footprint, host_bytes, proportional_bytes, residue
from heliosd.engines.frontend import VllmFrontend
from heliosd.engines.obituary import obituary
from heliosd.engines.pressure import Gauge
from heliosd.engines.progress import note_phases
from heliosd.engines.sentinels import Sentinels
from heliosd.errors import EngineFailed

log = logging.getLogger("heliosd.engines")

T = TypeVar("T")

_WORKERS_LEAVE_S = 3.0
"""Workers end by themselves when the engine's main process is gone."""


class VllmEngine:
    """Made by `VllmKind`, which calls `get_ready` before it gives it out."""

    def __init__(
        self,
        spec: LaunchSpec,
        llm: Any,
        registry: Any,
        gauge: Gauge,
        launch: Any,
        thread: Callable[..., Any],
        *,
        swaps: bool = False,
    ) -> None:
        self._spec = spec
        self._llm = llm
        self._registry = registry
        self._gauge = gauge
        self._level = 0
        self._launch = launch
        self._thread = thread
        self._stopping = False
        self._ended = asyncio.Event()
        self._cause: str | None = None
        self._frontend: VllmFrontend | None = None
        self._openai: Any = None
        self._served: Any = None
        self._footprint = Footprint(0, 0, 0)
        self._processes: list[psutil.Process] = []
        self._tasks: tuple[str, ...] = ()
        self._sentinels = Sentinels(self._died)
        self._stop_lock = asyncio.Lock()
        self._swaps = swaps

    async def get_ready(self, openai: Any) -> None:
        """Measure, and build the frontend. Part of the start. Raises EngineFailed when it dies meanwhile."""
        self.watch()
        await self.while_it_lives(self._get_ready(openai))

    async def get_ready_as(self, before: "VllmEngine", openai: Any) -> None:
        """The same for one that goes on in the processes of another of its shape, and holds what that one did."""
        self._processes, self._tasks, self._footprint = before._processes, before._tasks, before._footprint
        await self._build_frontend(openai)

    async def _get_ready(self, openai: Any) -> None:
        self._processes = await self._thread(self._find_processes)
        self._tasks = tuple(await self._llm.get_supported_tasks())
        reports = await self._llm.collective_rpc("helios_measure")
        note_phases(self._spec.clock, reports[0])
        async with asyncio.TaskGroup() as tasks:  # the kernel takes a while to add up what a process holds
            measuring = tasks.create_task(self._thread(lambda: footprint(reports, self.pids)))
            await self._build_frontend(openai)
        self._footprint = measuring.result()
        self._launch.mark("measure")

    async def _build_frontend(self, openai: Any) -> None:
        names, options = self._spec.served_names, self._spec.engine_args
        application, arguments = await self._thread(lambda: openai.prepare(self._llm, names, self._tasks, options))
        self._openai, self._served = openai, await openai.serve(self._llm, arguments, self._tasks)
        self._launch.mark("frontend")
        self._frontend = VllmFrontend(
            application, self._served, names[0], lambda: self._llm.errored, self.wait_dead, lambda: self._level > 0
        )

    @property
    def frontend(self) -> VllmFrontend:
        assert self._frontend is not None, "only engines that are ready are given out"
        return self._frontend

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(process.pid for process in self._processes)

    @property
    def footprint(self) -> Footprint:
        """See `heliosd.engines.footprint` for what is measured how."""
        return self._footprint

    @property
    def phases(self) -> Mapping[str, float]:
        return self._spec.clock.timeline().seconds()

    @property
    def max_model_len(self) -> int:
        return int(self._llm.model_config.max_model_len)

    @property
    def tasks(self) -> tuple[str, ...]:
        return self._tasks

    def unfinished(self) -> int:
        """Sequences that the engine works on."""
        return int(self._llm.get_num_unfinished_requests())

    @property
    def sleep_levels(self) -> frozenset[int]:
        """None on the host: vLLM has no sleep mode there. With room for adapters only where that room is kept.

        At level 2 the adapters' matrices would be lost, and weights cannot be read again by names that they changed.
        """
        if not self._llm.model_config.enable_sleep_mode:
            return frozenset()
        return frozenset({1, 2} if self._llm.vllm_config.lora_config is None else {1})

    async def sleep(self, level: int) -> Slept:
        """What is still under way is aborted. KV cache, prefix cache and caches of inputs are emptied."""
        name = self._spec.served_names[0]
        cannot = f"cannot put {name} to sleep at level {level}"
        if not self.sleep_levels:
            devices = ", ".join(device.id for device in self._spec.devices)
            raise EngineFailed(f"{cannot}: it was started without vLLM's sleep mode, on {devices}; stop it instead")
        if level not in self.sleep_levels:
            raise EngineFailed(f"{cannot}: it can at {' and '.join(map(str, sorted(self.sleep_levels)))}")
        async with self._saying(cannot):
            before_bytes = await self._thread(self._host_bytes)
            self._level = level
            await self._llm.sleep(level)
            reports = await self._llm.collective_rpc("helios_measure")
            after_bytes = await self._thread(self._host_bytes)
        return Slept(residue(reports), host_bytes(reports, before_bytes, after_bytes))

    async def wake(self) -> Footprint:
        """From level 2 the weights are read again from the model's directory, before the KV cache takes its room."""
        cannot = f"cannot wake {self._spec.served_names[0]}"
        if not self._level:
            raise EngineFailed(f"{cannot}: it is not asleep")
        async with self._saying(cannot):
            if self._level == 1:
                awake = await self._llm.wake_up()
            else:
                await self._llm.wake_up(tags=["weights"])
                await self._llm.collective_rpc("reload_weights")
                awake = await self._llm.wake_up(tags=["kv_cache"])
            await self._llm.check_health()
            if not awake or await self._llm.is_sleeping():
                raise EngineFailed(f"{cannot}: vLLM says that it still sleeps")
            reports = await self._llm.collective_rpc("helios_measure")
            self._footprint = await self._thread(lambda: footprint(reports, self.pids))
        self._level = 0
        return self._footprint

    async def load_adapter(self, name: str, directory: Path) -> None:
        async with self._saying(f"cannot use the adapter {name} with {self._spec.served_names[0]}", "adapter_refused"):
            await self.while_it_lives(self._openai.load_adapter(self._llm, self._served, name, directory))

    async def while_it_lives(self, work: Coroutine[Any, Any, T]) -> T:
        """Await a call to the engine, which may never return when the engine dies. Raises EngineFailed then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._raise_when_dead())
                result = await work
                watching.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return result

    async def _raise_when_dead(self) -> None:
        await self._ended.wait()
        raise EngineFailed(f"cannot go on with {self._spec.served_names[0]}: its engine died")

    @asynccontextmanager
    async def _saying(self, cannot: str, code: str | None = None) -> AsyncIterator[None]:
        """Whatever vLLM throws meanwhile is an EngineFailed with its words, or with what the engine died of.

        `code` is for the former: the engine lives.
        """
        try:
            yield
        except Exception as error:
            died = self._llm.errored or self._ended.is_set()
            if isinstance(error, EngineFailed) and not died:
                raise
            words = await self.wait_dead() if died else str(error) or repr(error)
            gone = self._spec.replica if died else None
            text = f"{cannot}: {gist(words)}"
            raise EngineFailed(text, code=None if died else code, cause=words, replica=gone) from error

    def _host_bytes(self) -> int:
        return sum(map(proportional_bytes, self.pids))

    @property
    def swaps(self) -> bool:
        return self._swaps and not self._level and "generate" in self._tasks

    def hand_over(self) -> tuple[Any, Any]:
        """Give up vLLM's side and the launch to whoever goes on with them: for this object the engine has ended."""
        self._stopping = True
        self._gauge.close()
        self._sentinels.close()
        return self._llm, self._launch

    def pressure(self) -> Pressure:
        return self._gauge.now

    def on_pressure(self, tell: Callable[[Pressure], None]) -> None:
        self._gauge.listen(tell)

    async def wait_dead(self) -> str:
        await self._ended.wait()
        if self._cause is None:
            self._cause = await self._thread(self._why)
        return self._cause

    async def stop(self) -> None:
        async with self._stop_lock:
            if not self._stopping:
                self._stopping = True
                self._gauge.close()
                self._sentinels.close()
                await asyncio.shield(self._thread(self._shut_down))

    def counted(self) -> Tokens:
        found: Tokens = self._registry.tokens()
        return found

    def metrics(self) -> str:
        return str(self._registry.text(replica=self._spec.replica))

    def watch(self) -> None:
        """Notice its death from now on. Harmless when repeated."""
        for process in () if self._sentinels else self._launch.processes:
            self._sentinels.watch(process)

    def _died(self) -> None:
        self._gauge.close()
        log.warning("engine died", extra={"replica": self._spec.replica})
        self._ended.set()

    def _why(self) -> str:
        for process in self._launch.processes:
            process.join(timeout=1)
            if process.exitcode is not None:
                return obituary(process.exitcode, self._spec.log_file, process.last_words)
        return "its process ended"

    def _find_processes(self) -> list[psutil.Process]:
        """The engine's and, with several devices, its workers'."""
        found: list[psutil.Process] = []
        for process in self._launch.processes:
            core = psutil.Process(process.pid)
            found += [core, *core.children(recursive=True)]
        return found

    def _shut_down(self) -> None:
        """Kill first: an engine has nothing to save, and its polite end takes a second."""
        self._launch.call_off()
        hang_up(self._llm, self._spec)
        _, left = psutil.wait_procs(self._processes, timeout=_WORKERS_LEAVE_S)
        for process in left:
            with suppress(psutil.NoSuchProcess):  # it has just ended
                process.kill()
        psutil.wait_procs(left)
        self._launch.clear_away()


def hang_up(llm: Any, spec: LaunchSpec) -> None:
    """End vLLM's side here. Whatever it says to that: its processes, its files and its memory must go all the same."""
    try:
        llm.shutdown()
    except Exception:
        log.warning("vLLM ended badly", extra={"replica": spec.replica}, exc_info=True)
