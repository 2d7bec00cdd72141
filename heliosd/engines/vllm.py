"""vLLM engines: their AsyncLLM and HTTP surface live in this process, the model in one forked from the zygote.

vLLM itself is behind `adapter`; here is what happens when, in which thread, and what is undone when it fails.
"""

import asyncio
import gc
import importlib
import logging
import os
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from heliosd.core.gist import gist
from heliosd.core.hardware import DeviceKind
from heliosd.core.storage_speed import Speed
from heliosd.engines.boot_watch import BootWatch
from heliosd.engines.engine import Engine, LaunchSpec
from heliosd.engines.obituary import obituary
from heliosd.engines.old_logs import remove_old
from heliosd.engines.pressure import Gauge
from heliosd.engines.progress import Hearing, note_swap
from heliosd.engines.shell import Shell
from heliosd.engines.shells import Shells
from heliosd.engines.surroundings import surroundings, vllm_version
from heliosd.engines.traced import EngineTracing
from heliosd.engines.vllm_engine import VllmEngine, hang_up
from heliosd.engines.warmup_facts import warmup_facts
from heliosd.engines.warmups import Warmups
from heliosd.engines.zygote import Zygote
from heliosd.errors import EngineFailed, HeliosError

log = logging.getLogger("heliosd.engines")

PRELOAD = "heliosd.engines.preload"
REHEARSAL = "heliosd.engines.rehearsal"
_STARTS_AT_ONCE = 64
UNCOMPARED_RATIO = 0.02
"""Of swapped weights so much may have no counterpart in the engine by name: tied heads, tables that are calculated."""

T = TypeVar("T")


class Warmth(StrEnum):
    COLD = "cold"
    WARMING = "warming"
    WARM = "warm"
    FAILED = "failed"


class VllmKind:
    """Starts vLLM engines on the host or on GPUs.

    `threads` is the number of CPU threads per engine on the host; None leaves one core to everything else.
    `warmups`: where what engines compile is kept for the next start; None: it is not. `tracing`: how engines join the
    traces of requests; None: there are none.
    """

    def __init__(
        self,
        log_dir: Path,
        device: DeviceKind = DeviceKind.HOST,
        threads: int | None = None,
        warmups: Warmups | None = None,
        tracing: EngineTracing | None = None,
    ) -> None:
        self._warmups = warmups
        self._tracing = tracing
        self.state = Warmth.COLD
        self.detail: str | None = None
        self.speeds: tuple[Speed, ...] = ()
        """What `heliosctl doctor --storage` measured here: it decides how weights are loaded on a GPU."""
        self._zygote = Zygote(PRELOAD, surroundings(device, threads, os.environ), log_dir / "zygote.log")
        self._pool = ThreadPoolExecutor(_STARTS_AT_ONCE, thread_name_prefix="vllm")
        # On a GPU a shell is a bare fork: it must not take a context before it is known on which device.
        self.shells = Shells(self._zygote, self._pool, REHEARSAL if device is DeviceKind.HOST else None)
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

    async def start(self, spec: LaunchSpec) -> VllmEngine:
        """Start an engine. Raises EngineFailed with what vLLM said. Cancelling leaves no process."""
        await self.warm()
        spec.clock.mark("zygote")
        if wrong := self._adapter.unknown_arguments(spec.engine_args, self._openai.fields):
            raise EngineFailed(f"cannot start {spec.served_names[0]}: {wrong}")
        # Engines that have ended are cycles, with 20 MiB, a thread and descriptors each. Left to itself Python collects
        # them after dozens of starts. What was frozen is not looked at, so that it takes 25 ms.
        await self._thread(gc.collect)
        spec.clock.mark("collect")
        launch = await self._launched(spec)
        shell = self.shells.take() if launch.may_begin_in_shell else None
        try:
            return await self._started(spec, launch, shell)
        finally:
            if shell is not None:
                self.shells.done_with(shell, spec.replica, spec.served_names[0])

    async def _started(self, spec: LaunchSpec, launch: Any, shell: Shell | None) -> VllmEngine:
        booting: asyncio.Future[Any] | None = None
        hearing: Hearing | None = None
        watch = BootWatch(launch.context, launch.interrupt)
        try:
            hearing = Hearing(launch.progress_address, spec.clock)
            booting = asyncio.get_running_loop().run_in_executor(self._pool, self._boot, spec, launch, shell)
            llm, registry, gauge = await asyncio.shield(booting)
            watch.close()
            swaps = self._adapter.can_swap(llm)
            engine = VllmEngine(spec, llm, registry, gauge, launch, self._thread, swaps=swaps)
            await engine.get_ready(self._openai)
            launch.keep_warmup(self._pool)
        except BaseException as failure:
            launch.call_off()
            if booting is not None:
                await asyncio.wait([booting])  # it ends at once: its processes are gone
                if booting.exception() is None:
                    await self._thread(partial(hang_up, booting.result()[0], spec))
            launch.clear_away()
            if not isinstance(failure, Exception):
                raise
            raise await self._thread(partial(_why_not, spec, launch, failure)) from failure
        finally:
            watch.close()
            if hearing is not None:
                hearing.close()
        return engine

    async def take_over(self, engine: Engine, spec: LaunchSpec) -> VllmEngine:
        """Weights are read and compared in the engine while its tokenizer and templates are read, and put on, here."""
        assert isinstance(engine, VllmEngine), "an engine of this kind"
        name = spec.served_names[0]
        if not engine.swaps:
            await engine.stop()
            raise EngineFailed(f"cannot make a running engine {name}: it cannot read other weights")
        llm, launch = engine.hand_over()
        launch.begin_again(spec.clock, spec.traceparent)
        registry, gauge = self._adapter.Registry(), Gauge()
        other = VllmEngine(spec, llm, registry, gauge, launch, self._thread, swaps=True)
        other.watch()
        hearing: Hearing | None = None
        try:
            hearing = Hearing(launch.progress_address, spec.clock)
            async with asyncio.TaskGroup() as group:
                arguments = {"directory": str(spec.directory), "served_names": list(spec.served_names)}
                swap = llm.collective_rpc("helios_swap", kwargs=arguments)
                reading = group.create_task(other.while_it_lives(swap))
                face = await self._thread(partial(self._face, spec, launch, llm, registry, gauge))
                before = face.put_on(llm)
                await other.get_ready_as(engine, self._openai)
            (read,) = reading.result()
            note_swap(spec.clock, read["report"])
            _check(name, read["compared"])
            await other.while_it_lives(llm.reset_prefix_cache())
            await self._thread(before.shutdown)
        except BaseException as failure:
            await asyncio.shield(other.stop())
            if not isinstance(failure, Exception):
                raise
            first = failure.exceptions[0] if isinstance(failure, ExceptionGroup) else failure
            words = str(first) or repr(first)
            raise EngineFailed(f"cannot make a running engine {name}: {gist(words)}", cause=words) from failure
        finally:
            if hearing is not None:
                hearing.close()
        return other

    def _face(self, spec: LaunchSpec, launch: Any, llm: Any, registry: Any, gauge: Gauge) -> Any:
        with self._adapter.started_by(launch):
            config = self._adapter.engine_config(spec, tracing=self._tracing)
            launch.mark("configure")
            face = self._adapter.Face(llm, config, registry, gauge.note)
            launch.mark("tokenizer")
        return face

    async def _launched(self, spec: LaunchSpec) -> Any:
        """What a start takes up before its first process. Cancelled, it is given back as soon as it is there."""
        taking = asyncio.get_running_loop().run_in_executor(self._pool, self._launch, spec)
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._clear_away)
            raise

    def _clear_away(self, taken: "asyncio.Future[Any]") -> None:
        if not taken.cancelled() and taken.exception() is None:
            self._pool.submit(taken.result().clear_away)

    def _launch(self, spec: LaunchSpec) -> Any:
        folder = spec.log_file.parent
        folder.mkdir(parents=True, exist_ok=True)
        remove_old(folder)
        warmup = None
        if self._warmups is not None and (facts := warmup_facts(spec, self.version)):
            warmup = self._warmups.take(facts)
            spec.clock.mark("restore")
        try:
            return self._adapter.Launch(self._zygote, spec, warmup, self._tracing)
        except BaseException:
            if warmup is not None:
                warmup.release()
            raise

    def _boot(self, spec: LaunchSpec, launch: Any, shell: Shell | None) -> Any:
        launch.mark("launch")
        with self._adapter.started_by(launch):
            config = self._adapter.engine_config(spec, self.speeds, self._tracing)
            launch.mark("configure")
            if self._adapter.one_process(config):
                launch.context.shell = shell
            registry, gauge = self._adapter.Registry(), Gauge()
            llm = self._adapter.start_engine(config, registry, gauge.note)
            launch.mark("serving")
        return llm, registry, gauge

    async def close(self) -> None:
        """End the zygote, and with it what still runs."""
        self.shells.close()
        await self._thread(self._zygote.close)
        self._pool.shutdown(wait=False)

    async def _thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _check(name: str, read: Mapping[str, Any]) -> None:
    """Whether the engine holds what the files say. Raises EngineFailed."""
    if read["differs"] is not None:
        raise EngineFailed(f"cannot make a running engine {name}: it holds another {read['differs']} than its file")
    known, unknown = read["equal_bytes"], read["unknown_bytes"]
    if unknown > known * UNCOMPARED_RATIO:
        raise EngineFailed(
            f"cannot make a running engine {name}: {unknown} of {known + unknown} bytes of its weights cannot be "
            "compared with their files"
        )


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
