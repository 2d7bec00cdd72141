"""vLLM's engine as Helios uses it: its configuration, its start from the zygote, its own metrics.

With `adapter_openai` the only module that knows vLLM's insides; when vLLM moves something, it moves here. Import
it in a thread: vllm and torch take ten seconds.
"""

import dataclasses
import difflib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

# Before vllm is imported: it would send its log lines to the daemon's standard output. The zygote has its own.
os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")

import prometheus_client
import vllm.model_executor.models.registry as model_registry
import vllm.tokenizers.hf as hf_tokenizers
import vllm.tokenizers.registry as tokenizer_registry
import vllm.tracing as vllm_tracing
import vllm.v1.engine.utils as engine_utils
import vllm.v1.utils as v1_utils
import zmq
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.renderers import renderer_from_config
from vllm.utils import func_utils
from vllm.v1.engine import async_llm
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.metrics.loggers import AggregateStatLoggerBase, PrometheusStatLogger, StatLoggerManager
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from heliosd.core.booked_arguments import refusal
from heliosd.core.hardware import DeviceKind
from heliosd.core.metering import Tokens
from heliosd.core.storage_speed import Speed
from heliosd.engines.changed import changed
from heliosd.engines.engine import LaunchSpec, Pressure
from heliosd.engines.loader_formats import STREAMERS, load_format
from heliosd.engines.meter import METER
from heliosd.engines.progress import ADDRESS
from heliosd.engines.start_clock import StartClock
from heliosd.engines.surroundings import installed
from heliosd.engines.tokenizers import Tokenizers, shared
from heliosd.engines.traced import EngineTracing
from heliosd.engines.warmup_facts import compiles_on_host
from heliosd.engines.warmups import Warmup
from heliosd.engines.worker import NAMES as OUR_WORKERS
from heliosd.engines.zygote import ForkContext, ForkedProcess, Zygote, call_in_fork
from heliosd.errors import EngineFailed

logging.getLogger("vllm").setLevel(logging.ERROR)
# It calls every stop an engine's death; what an engine died of is ours to tell, with the cause.
logging.getLogger("vllm.v1.engine.async_llm").setLevel(logging.CRITICAL)
# It logs what is wrong with a request as an error, with a traceback; the client is told, and the request's line has it.
logging.getLogger("vllm.entrypoints.anthropic.api_router").setLevel(logging.CRITICAL)

_ENGINE_FIELDS = frozenset(field.name for field in dataclasses.fields(AsyncEngineArgs))
_LEAST_UTILIZATION = 0.01
_configuring = threading.Lock()


class Launch:
    """One engine's start: where it is forked from and logs to, what it has got, and whether it was called off."""

    def __init__(
        self, zygote: Zygote, spec: LaunchSpec, warmup: Warmup | None = None, tracing: EngineTracing | None = None
    ) -> None:
        self._zygote = zygote
        self._traced = tracing is not None
        self.traceparent = spec.traceparent
        self._log_file = spec.log_file
        self._folder = tempfile.mkdtemp(prefix="e-", dir=zygote.folder)
        self._addresses: list[str] = []
        self.progress_address = f"{self._folder}/p"
        environment = {"VLLM_RPC_BASE_PATH": self._folder, ADDRESS: self.progress_address, **_child_environment(spec)}
        if tracing is not None:
            environment |= tracing.environment(spec.traceparent)
        self._warmup = warmup
        if warmup is not None:
            environment |= warmup.environment
        self.context = ForkContext(zygote, spec.log_file, environment)
        # In a shell on the host it is settled already that torch compiles nothing.
        self.may_begin_in_shell = not compiles_on_host(spec)
        self.mark = spec.clock.mark
        self._shares = not spec.engine_args.get("enable_prompt_embeds")  # that adds a token

    def begin_again(self, clock: StartClock, traceparent: str = "") -> None:
        """What is marked from here on is of another start: the engine becomes another model."""
        self.mark, self.traceparent = clock.mark, traceparent
        if self._warmup is not None:
            self._warmup.close()

    @property
    def processes(self) -> list[ForkedProcess]:
        return self.context.started

    def admit(self) -> ForkContext:
        """Called by vLLM, in its thread, when it wants to start processes. Raises when the start was called off."""
        if self.context.called_off:
            raise EngineFailed("cannot go on: the start was called off")
        self.mark("prepare")
        return self.context

    def call(self, function: Callable[[], Any]) -> Any:
        """Where vLLM wants to look at a model's class without loading it here. In a fresh Python it takes 7 s."""
        return call_in_fork(self._zygote, self._log_file, function)

    def socket_address(self) -> str:
        """Where vLLM's two halves talk. In a folder of ours: vLLM leaves the sockets lying about."""
        self._addresses.append(f"ipc://{self._folder}/{len(self._addresses)}")
        return self._addresses[-1]

    def interrupt(self) -> Callable[[], None]:
        """Have vLLM's thread fail where it waits for a message, by one from somebody it does not know. Never blocks.

        Returns what to call when it has failed.
        """
        context = zmq.Context()
        strangers = [context.socket(zmq.DEALER) for _ in self._addresses]
        for stranger, address in zip(strangers, self._addresses, strict=False):  # vLLM's thread may add one
            stranger.linger = 0
            stranger.connect(address)
            with suppress(zmq.Again):  # it listens for nobody
                stranger.send(b"", zmq.NOBLOCK)

        def afterwards() -> None:
            for stranger in strangers:
                stranger.close()
            context.term()

        return afterwards

    def init_tracer(self, *args: Any) -> Any:
        """Where vLLM wants to send spans of this process by itself. Where ours are made, its own are made there too."""
        return None if self._traced else vllm_tracing.init_tracer(*args)

    def keep_warmup(self, pool: Executor) -> None:
        """Keep in the background what the engine compiled, now that it is ready."""
        if self._warmup is not None:
            pool.submit(self._warmup.keep)

    def clear_away(self) -> None:
        """Remove what the engine left in the file system, and in vLLM's own memory. For when it has ended."""
        # Of the last 64 engines it keeps methods of the tokenizers, and by them 40 MiB of each.
        func_utils._supports_kw.cache_clear()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._warmup is not None:
            self._warmup.release()

    def tokenizer(self, name: str, **options: Any) -> Any:
        """Where vLLM wants a tokenizer that it may keep."""
        return (_tokenizers.get if self._shares else tokenizer_registry.get_tokenizer)(name, **options)

    def call_off(self) -> None:
        """Kill what was started, and let nothing more start. vLLM's thread then fails by itself."""
        self.context.call_off()


def _share_tokenizer(tokenizer: Any) -> Any:
    return shared(hf_tokenizers.maybe_make_thread_pool, hf_tokenizers.ThreadSafeHFTokenizerMixin, tokenizer)


_tokenizers = Tokenizers(tokenizer_registry.get_tokenizer, _share_tokenizer)
_launch: ContextVar[Launch | None] = ContextVar("helios_launch", default=None)


def install() -> None:
    """Let vLLM start the engines that are ours in our way, and all others as it always does."""
    _replace(engine_utils, "get_mp_context", Launch.admit)
    _replace(engine_utils, "get_open_zmq_ipc_path", Launch.socket_address)
    _replace(v1_utils, "get_open_zmq_ipc_path", Launch.socket_address)
    _replace(model_registry, "_run_in_subprocess", Launch.call)
    _replace(tokenizer_registry, "cached_get_tokenizer", Launch.tokenizer)
    _replace(async_llm, "init_tracer", Launch.init_tracer)


def _replace(module: Any, name: str, ours: Callable[..., Any]) -> None:
    theirs = getattr(module, name, None)
    if not callable(theirs):
        raise changed(f"{module.__name__}.{name}")
    if hasattr(theirs, "helios"):
        return

    def chosen(*args: Any, **options: Any) -> Any:
        launch = _launch.get()
        return theirs(*args, **options) if launch is None else ours(launch, *args, **options)

    chosen.helios = True  # type: ignore[attr-defined]
    setattr(module, name, chosen)


@contextmanager
def started_by(launch: Launch) -> Iterator[None]:
    """What vLLM does in this thread meanwhile, it does for this start."""
    token = _launch.set(launch)
    try:
        with _part_of(launch.traceparent) if launch.traceparent else nullcontext():
            yield
    finally:
        _launch.reset(token)


@contextmanager
def _part_of(traceparent: str) -> Iterator[None]:
    """What vLLM tells of itself in this thread meanwhile is a part of that span."""
    from opentelemetry import context

    token = context.attach(vllm_tracing.extract_trace_context({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)


def engine_config(spec: LaunchSpec, speeds: tuple[Speed, ...] = (), tracing: EngineTracing | None = None) -> Any:
    """vLLM's configuration for this start; `speeds` are what was measured of this storage. Blocks.

    Raises EngineFailed for arguments nobody knows or may set.
    """
    if refused := [why for name in spec.engine_args if (why := refusal(name))]:
        raise EngineFailed(f"cannot start {spec.served_names[0]}: its engine_args {'; '.join(refused)}")
    args = {name: value for name, value in spec.engine_args.items() if name in _ENGINE_FIELDS}
    kinds = {device.kind for device in spec.devices}
    on_host = DeviceKind.HOST in kinds
    files = [path.name for path in spec.directory.iterdir()]
    args.setdefault("load_format", load_format(files, not on_host, installed(STREAMERS), speeds))
    if tracing is not None:
        args.setdefault("otlp_traces_endpoint", tracing.endpoint)
    if on_host:
        args.setdefault("enforce_eager", True)
    if spec.max_model_len is not None:
        args["max_model_len"] = spec.max_model_len
    if kinds == {DeviceKind.CUDA}:
        args["device_ids"] = [device.index for device in spec.devices]
    if not on_host:
        args["tensor_parallel_size"] = len(spec.devices) // spec.pipeline_parallel
        args["pipeline_parallel_size"] = spec.pipeline_parallel
        # With the KV cache's size given it is not used to size anything, but vLLM still refuses to start when less of
        # the device is free: with its default, a second engine on a device never would.
        args["gpu_memory_utilization"] = _LEAST_UTILIZATION
        args.setdefault("enable_sleep_mode", spec.sleep)
    engine_args = AsyncEngineArgs(
        model=str(spec.directory),
        served_model_name=list(spec.served_names),
        kv_cache_memory_bytes=spec.kv_cache_bytes,
        max_num_seqs=spec.max_num_seqs,
        dtype=spec.dtype,
        trust_remote_code=spec.trust_remote_code,
        **args,
    )
    with _configuring:
        # On the CPU vLLM writes what its workers need into our environment; the zygote has that already.
        before = dict(os.environ)
        try:
            config = engine_args.create_engine_config()
        finally:
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)
    parallel = config.parallel_config
    parallel.worker_cls = OUR_WORKERS.get(parallel.worker_cls, parallel.worker_cls)
    if parallel.world_size == 1 and "distributed_executor_backend" not in args:
        # vLLM asks for a worker process of its own on the CPU, for the sake of thread settings; ours are the
        # zygote's. One process less is a fork, a handshake and 70 MB less.
        parallel.distributed_executor_backend = "uni"
    return config


def start_engine(config: Any, registry: "Registry", pressed: Callable[[Pressure], None]) -> AsyncLLM:
    """Start the engine and wait until it is ready. Blocks; it ends when its launch is called off.

    `pressed` is called on the event loop after each of its steps.
    """
    loggers = [_metrics_logger(registry), _pressure_logger(pressed)]
    llm = AsyncLLM.from_vllm_config(config, stat_loggers=loggers, disable_log_stats=True)
    meter(llm)
    return llm


def one_process(config: Any) -> bool:
    """Whether the engine's main process forks no others: one that has used OpenMP could not."""
    parallel = config.parallel_config
    return bool(
        parallel.world_size == 1 and parallel.data_parallel_size == 1 and parallel.distributed_executor_backend == "uni"
    )


def meter(llm: AsyncLLM) -> None:
    """Let each request's meter read what vLLM counts for its sequences: the numbers that its counters add up.

    Sequences that vLLM drops (aborted, failed) keep what was counted until then.
    """
    processor = llm.output_processor
    add = processor.add_request

    def added(request: Any, *args: Any, **options: Any) -> None:
        add(request, *args, **options)
        ours, state = METER.get(), processor.request_states.get(request.request_id)
        if ours is None or state is None:
            return
        if state.stats is None:
            raise changed("RequestState.stats")

        def count() -> tuple[Tokens, bool]:
            prompt, cached = (0, 0) if state.is_prefilling else (state.prompt_len, state.num_cached_tokens)
            going = processor.request_states.get(request.request_id) is state and not llm.errored
            return Tokens(prompt, cached, state.stats.num_generation_tokens), going

        ours.add(count)

    processor.add_request = added


def can_swap(llm: AsyncLLM) -> bool:
    """Whether its weights can be replaced by others of the same shape: one process, plain weights, text only."""
    config = llm.vllm_config
    plain = config.lora_config is None and config.speculative_config is None and config.quant_config is None
    one = config.parallel_config.world_size == 1 and config.parallel_config.data_parallel_size == 1
    return plain and one and not config.model_config.is_multimodal_model


class Face:
    """What of an engine lives in this process and is its model's own: tokenizer, templates, limits, names, metrics."""

    def __init__(self, llm: AsyncLLM, config: Any, registry: "Registry", pressed: Callable[[Pressure], None]) -> None:
        """Blocks: it reads the tokenizer. Nothing is changed yet."""
        config.cache_config = llm.vllm_config.cache_config  # with the blocks that the engine has
        self.config = config
        self.renderer = renderer_from_config(config)
        self.inputs = InputProcessor(config, self.renderer)
        self.loggers = StatLoggerManager(
            vllm_config=config,
            engine_idxs=llm.engine_core.engine_ranks_managed,
            custom_stat_loggers=[_metrics_logger(registry), _pressure_logger(pressed)],
            enable_default_loggers=False,
        )

    def put_on(self, llm: AsyncLLM) -> Any:
        """Replace the one that is there, whose renderer is returned, to be shut down. No request may be under way."""
        before = llm.renderer
        if not hasattr(llm.output_processor, "tokenizer"):
            raise changed("OutputProcessor.tokenizer")
        if llm.output_handler is not None:  # it runs since the first request, and keeps what it calls in a list
            if not hasattr(llm, "_logger_ref"):
                raise changed("AsyncLLM._logger_ref")
            llm._logger_ref[0] = self.loggers
        llm.vllm_config, llm.model_config = self.config, self.config.model_config
        llm.renderer, llm.input_processor = self.renderer, self.inputs
        llm.output_processor.tokenizer = self.renderer.tokenizer
        llm.logger_manager = self.loggers
        self.loggers.log_engine_initialized()
        return before


def unknown_arguments(names: Mapping[str, Any], more_known: frozenset[str]) -> str | None:
    """What is wrong with the names of the operator's arguments, with the nearest known one."""
    known = _ENGINE_FIELDS | more_known
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            return f"vLLM has no argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return None


_COUNTERS = ("vllm:prompt_tokens_total", "vllm:prompt_tokens_cached_total", "vllm:generation_tokens_total")
"""In the order of `Tokens`."""


class Registry(prometheus_client.CollectorRegistry):
    """One engine's own metrics.

    vLLM keeps them in the process's global registry and first removes what an earlier engine put there: with two
    engines in one process the first would go silent.
    """

    def text(self, **labels: str) -> str:
        """In Prometheus text format, each series with `labels` added: two engines may serve one model."""
        return prometheus_client.generate_latest(_Labelled(self, labels)).decode()

    def tokens(self) -> Tokens:
        """All that the engine's counters have counted."""
        values = dict.fromkeys(_COUNTERS, 0.0)
        for family in self.restricted_registry(_COUNTERS).collect():
            for sample in family.samples:
                if sample.name in values:  # there is one for each engine of a data-parallel group
                    values[sample.name] += sample.value
        return Tokens(*(int(value) for value in values.values()))


class _Labelled:
    def __init__(self, registry: Registry, labels: Mapping[str, str]) -> None:
        self._registry = registry
        self._labels = labels

    def collect(self) -> Iterator[Any]:
        for family in self._registry.collect():
            family.samples = [sample._replace(labels={**sample.labels, **self._labels}) for sample in family.samples]
            yield family


def _metrics_logger(registry: Registry) -> type[PrometheusStatLogger]:
    """vLLM's own logger of metrics, writing to `registry`."""
    kinds: dict[str, Any] = {
        "_gauge_cls": partial(prometheus_client.Gauge, registry=registry),
        "_counter_cls": partial(prometheus_client.Counter, registry=registry),
        "_histogram_cls": partial(prometheus_client.Histogram, registry=registry),
    }
    body = dict(kinds)
    for name in ("_spec_decoding_cls", "_kv_connector_cls", "_ec_connector_cls", "_perf_metrics_cls"):
        part = getattr(PrometheusStatLogger, name, None)
        if part is None:
            raise changed(f"PrometheusStatLogger.{name}")
        own = {kind: made for kind, made in kinds.items() if hasattr(part, kind)}
        body[name] = type(f"Separate{part.__name__}", (part,), own)
    return type("SeparatePrometheusStatLogger", (PrometheusStatLogger,), body)


def _pressure_logger(pressed: Callable[[Pressure], None]) -> type[AggregateStatLoggerBase]:
    """A logger that hands on how many sequences run and wait, and how full the KV cache is."""

    class PressureLogger(AggregateStatLoggerBase):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_indexes: list[int]) -> None:
            self._preemptions = 0

        def record(
            self,
            scheduler_stats: SchedulerStats | None,
            iteration_stats: IterationStats | None,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            if iteration_stats is not None:
                self._preemptions += iteration_stats.num_preempted_reqs
            if scheduler_stats is not None:
                waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
                running, used_ratio = scheduler_stats.num_running_reqs, scheduler_stats.kv_cache_usage
                pressed(Pressure(running, waiting, used_ratio, self._preemptions))

        def log_engine_initialized(self) -> None:
            """Nothing to say."""

    return PressureLogger


def _child_environment(spec: LaunchSpec) -> dict[str, str]:
    """A MIG slice can be chosen only by its UUID, in the environment, before CUDA is first touched. On the host nothing
    is compiled unless the operator wants it."""
    slices = [device.id for device in spec.devices if device.kind is DeviceKind.MIG]
    chosen = {"CUDA_VISIBLE_DEVICES": ",".join(slices)} if slices else {}
    return {**chosen, "TORCH_COMPILE_DISABLE": "0"} if compiles_on_host(spec) else chosen
