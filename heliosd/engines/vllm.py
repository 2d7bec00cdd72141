"""vLLM engines: their AsyncLLM and HTTP surface live in this process, the model in one forked from the zygote.

vLLM itself is behind `adapter`; here is what happens when, in which thread, and what is undone when it fails.
"""

import asyncio
import gc
import importlib
import itertools
import logging
import os
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil

from heliosd.core.gist import gist
from heliosd.core.hardware import DeviceKind
from heliosd.core.messages import Footprint
from heliosd.engines.engine import LaunchSpec
from heliosd.engines.footprint import footprint
from heliosd.engines.frontend import VllmFrontend
from heliosd.engines.obituary import obituary
from heliosd.engines.old_logs import remove_old
from heliosd.engines.surroundings import surroundings, vllm_version
from heliosd.engines.zygote import Zygote
from heliosd.errors import EngineFailed, HeliosError

log = logging.getLogger("heliosd.engines")

PRELOAD = "heliosd.engines.preload"
_STARTS_AT_ONCE = 64
_WORKERS_LEAVE_S = 3.0
"""Workers end by themselves when the engine's main process is gone."""

T = TypeVar("T")


class Warmth(StrEnum):
    COLD = "cold"
    WARMING = "warming"
    WARM = "warm"
    FAILED = "failed"


class VllmKind:
    """Starts vLLM engines on the host or on GPUs.

    `threads` is the number of CPU threads per engine on the host; None leaves one core to everything else.
    """

    def __init__(self, log_dir: Path, device: DeviceKind = DeviceKind.HOST, threads: int | None = None) -> None:
        self.state = Warmth.COLD
        self.detail: str | None = None
        self._zygote = Zygote(PRELOAD, surroundings(device, threads, os.environ), log_dir / "zygote.log")
        self._pool = ThreadPoolExecutor(_STARTS_AT_ONCE, thread_name_prefix="vllm")
        self._warming = asyncio.Lock()
        self._adapter: Any = None
        self._openai: Any = None

    @property
    def version(self) -> str | None:
        return vllm_version()

    async def warm(self) -> None:
        """Import vLLM here and start the zygote, side by side. Raises EngineFailed when either cannot be."""
        async with self._warming:
            try:
                if self._adapter is None:
                    self.state = Warmth.WARMING
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._thread(self._import))
                        group.create_task(self._thread(self._zygote.ensure))
                else:
                    await self._thread(self._zygote.ensure)
            except* Exception as errors:
                failed = _first(errors)
                self.state, self.detail = Warmth.FAILED, str(failed)
                raise failed from errors
            self.state, self.detail = Warmth.WARM, None

    def _import(self) -> None:
        gc.disable()  # vLLM is a million objects: each full collection on the way stops the event loop, up to 0.3 s
        level = logging.root.level  # one of the libraries sets it to ERROR, for everybody
        try:
            adapter = importlib.import_module("heliosd.engines.adapter")
            adapter.install()
            openai = importlib.import_module("heliosd.engines.adapter_openai").OpenAi()
            openai.warm()
        except Exception as error:
            raise EngineFailed(f"cannot use vLLM: {error}", cause=traceback.format_exc()) from error
        finally:
            gc.freeze()  # and each later one again, in the middle of somebody's answer
            gc.enable()
            logging.root.setLevel(level)
        self._adapter, self._openai = adapter, openai

    async def start(self, spec: LaunchSpec) -> "VllmEngine":
        """Start an engine. Raises EngineFailed with what vLLM said. Cancelling leaves no process."""
        await self.warm()
        if wrong := self._adapter.unknown_arguments(spec.engine_args, self._openai.fields):
            raise EngineFailed(f"cannot start {spec.served_names[0]}: {wrong}")
        # Engines that have ended are cycles, with 20 MiB, a thread and descriptors each. Left to itself Python collects
        # them after dozens of starts. What was frozen is not looked at, so that it takes 25 ms.
        await self._thread(gc.collect)
        launch = await self._thread(partial(self._launch, spec))
        booting = asyncio.get_running_loop().run_in_executor(self._pool, self._boot, spec, launch)
        try:
            llm, registry = await asyncio.shield(booting)
            engine = VllmEngine(spec, llm, registry, launch, self._thread)
            await engine.get_ready(self._openai)
        except BaseException as failure:
            launch.call_off()
            await asyncio.wait([booting])  # it ends at once: its processes are gone
            if booting.exception() is None:
                await self._thread(partial(_hang_up, booting.result()[0], spec))
            launch.clear_away()
            if not isinstance(failure, Exception):
                raise
            raise await self._thread(partial(_why_not, spec, launch, failure)) from failure
        return engine

    def _launch(self, spec: LaunchSpec) -> Any:
        folder = spec.log_file.parent
        folder.mkdir(parents=True, exist_ok=True)
        remove_old(folder)
        return self._adapter.Launch(self._zygote, spec)

    def _boot(self, spec: LaunchSpec, launch: Any) -> Any:
        with self._adapter.started_by(launch):
            config = self._adapter.engine_config(spec)
            launch.mark("configure")
            registry = self._adapter.Registry()
            llm = self._adapter.start_engine(config, registry)
            launch.mark("serving")
        return llm, registry

    async def close(self) -> None:
        """End the zygote, and with it what still runs."""
        await self._thread(self._zygote.close)
        self._pool.shutdown(wait=False)

    async def _thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _hang_up(llm: Any, spec: LaunchSpec) -> None:
    """End vLLM's side here. Whatever it says to that: its processes, its files and its memory must go all the same."""
    try:
        llm.shutdown()
    except Exception:
        log.warning("vLLM ended badly", extra={"replica": spec.replica}, exc_info=True)


def _first(errors: ExceptionGroup[Exception]) -> EngineFailed:
    """What went wrong first, as the one error that callers know."""
    error = errors.exceptions[0]
    if isinstance(error, ExceptionGroup):
        return _first(error)
    if isinstance(error, EngineFailed):
        return error
    return EngineFailed(f"cannot prepare vLLM: {type(error).__name__}: {error}", cause=str(error))


def _why_not(spec: LaunchSpec, launch: Any, error: Exception) -> EngineFailed:
    """The reason of a failed start: what the engine process said last, else what vLLM told here."""
    if isinstance(error, HeliosError) and not launch.processes:
        return EngineFailed(error.message, cause=error.cause)
    for process in launch.processes:
        process.join(timeout=5)
        if words := process.last_words:
            break
        if process.exitcode:
            words = obituary(process.exitcode, spec.log_file)
            break
    else:
        words = "".join(traceback.format_exception(error))
    name, without = spec.served_names[0], ""
    if spec.remote_code and not spec.trust_remote_code:
        without = f' without the code that comes with it ([models."{name}"] trust_remote_code = true would run that)'
    return EngineFailed(f"cannot start {name}{without}: {gist(words)}", cause=words)


class VllmEngine:
    """A running engine."""

    def __init__(self, spec: LaunchSpec, llm: Any, registry: Any, launch: Any, thread: Callable[..., Any]) -> None:
        self._spec = spec
        self._llm = llm
        self._registry = registry
        self._launch = launch
        self._thread = thread
        self._stopping = False
        self._ended = asyncio.Event()
        self._cause: str | None = None
        self._frontend: VllmFrontend | None = None
        self._footprint = Footprint(0, 0, 0)
        self._processes: list[psutil.Process] = []
        self._phases: dict[str, float] = {}
        self._tasks: tuple[str, ...] = ()
        self._sentinels: list[int] = []
        self._stop_lock = asyncio.Lock()

    async def get_ready(self, openai: Any) -> None:
        """Measure, and build the frontend. Part of the start."""
        self._watch()
        self._processes = await self._thread(self._find_processes)
        self._tasks = tuple(await self._llm.get_supported_tasks())
        reports = await self._llm.collective_rpc("helios_measure")
        self._footprint = await self._thread(lambda: footprint(reports, self.pids))
        names, options = self._spec.served_names, self._spec.engine_args
        application, arguments = await self._thread(lambda: openai.prepare(self._llm, names, self._tasks, options))
        served = await openai.serve(self._llm, arguments, self._tasks)
        self._launch.mark("frontend")
        self._phases = _phases(self._launch.marks, reports[0])
        self._frontend = VllmFrontend(
            application, served, self._spec.served_names[0], lambda: self._llm.errored, self.wait_dead
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
        return self._phases

    @property
    def max_model_len(self) -> int:
        return int(self._llm.model_config.max_model_len)

    @property
    def tasks(self) -> tuple[str, ...]:
        return self._tasks

    def unfinished(self) -> int:
        """Sequences that the engine works on."""
        return int(self._llm.get_num_unfinished_requests())

    async def wait_dead(self) -> str:
        await self._ended.wait()
        if self._cause is None:
            self._cause = await self._thread(self._why)
        return self._cause

    async def stop(self) -> None:
        async with self._stop_lock:
            if not self._stopping:
                self._stopping = True
                self._unwatch()
                await asyncio.shield(self._thread(self._shut_down))

    def metrics(self) -> str:
        return str(self._registry.text(replica=self._spec.replica))

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        for process in self._launch.processes:
            sentinel = os.dup(process.sentinel)  # vLLM closes its own when it notices first
            self._sentinels.append(sentinel)
            loop.add_reader(sentinel, self._died)

    def _died(self) -> None:
        self._unwatch()
        log.warning("engine died", extra={"replica": self._spec.replica})
        self._ended.set()

    def _unwatch(self) -> None:
        for sentinel in self._sentinels:
            asyncio.get_running_loop().remove_reader(sentinel)
            os.close(sentinel)
        self._sentinels.clear()

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
        _hang_up(self._llm, self._spec)
        _, left = psutil.wait_procs(self._processes, timeout=_WORKERS_LEAVE_S)
        for process in left:
            with suppress(psutil.NoSuchProcess):  # it has just ended
                process.kill()
        psutil.wait_procs(left)
        self._launch.clear_away()


def _phases(marks: list[tuple[str, float]], report: Mapping[str, Any]) -> dict[str, float]:
    """Seconds between marks, named by what had been done at the later one; ours and the worker's in one order."""
    ordered = sorted([*marks, ("fork", report["born_at"]), *report["marks"]], key=lambda mark: mark[1])
    spans: dict[str, float] = {}
    for (_, begin), (step, end) in itertools.pairwise(ordered):
        spans[step] = round(spans.get(step, 0.0) + end - begin, 4)
    return spans
