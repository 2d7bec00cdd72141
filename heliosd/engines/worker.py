"""vLLM's worker, which also tells how long each step of its start took and what memory it holds, awake and asleep.

Named to vLLM as `worker_cls`, its own way to choose a worker; lives in the engine process.
"""

import dataclasses
import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from heliosd.engines import forked, hot_swap, loader_memory
from heliosd.engines.changed import changed
from heliosd.engines.no_adapter import skip_tokens_without_adapter
from heliosd.engines.progress import say

NAMES = {
    "vllm.v1.worker.cpu_worker.CPUWorker": "heliosd.engines.worker.CPUWorker",
    "vllm.v1.worker.gpu_worker.Worker": "heliosd.engines.worker.GPUWorker",
}
"""vLLM's workers and ours in their place."""


def _measured(base: Any) -> Any:
    class Measured(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.helios_marks: list[tuple[str, float]] = []
            self.helios_parts: list[tuple[str, str, float, float]] = []
            self.helios_weights_bytes = 0
            self.helios_started_bytes: int | None = None
            self.helios_given_back_bytes = 0
            self.helios_pinned_bytes = 0
            self.helios_driver_tells = False
            if os.environ.get("TORCH_COMPILE_DISABLE") == "0":
                _compile_again()
            super().__init__(*args, **kwargs)
            if getattr(self, "rank", 0) == 0:
                say(forked.born_as, forked.born_at)
            self._helios_mark("engine")

        def _helios_mark(self, step: str) -> None:
            self.helios_marks.append((step, time.monotonic()))
            if getattr(self, "rank", 0) == 0:
                say(*self.helios_marks[-1])

        def init_device(self) -> Any:
            result = super().init_device()
            self._helios_mark("device")
            return result

        def load_model(self, *args: Any, **kwargs: Any) -> Any:
            if self.device.type == "cpu" and self.vllm_config.lora_config is not None:
                skip_tokens_without_adapter()
            with _before_packing(self._helios_weigh):
                result = super().load_model(*args, **kwargs)
            self._helios_weigh(self.model_runner.get_model())
            self.helios_weights_bytes += _storage_bytes(_adapter_room(self.model_runner.get_model()))
            self._helios_mark("weights")
            return result

        def _helios_weigh(self, model: Any) -> None:
            held = _storage_bytes([*model.parameters(), *model.buffers()])
            self.helios_weights_bytes = max(self.helios_weights_bytes, held)

        def initialize_from_config(self, *args: Any, **kwargs: Any) -> Any:
            result = super().initialize_from_config(*args, **kwargs)
            self._helios_mark("kv_cache")
            return result

        def determine_available_memory(self, *args: Any, **kwargs: Any) -> Any:
            """Where the model is compiled, if it is: it runs for the first time here."""
            began = time.monotonic()
            result = super().determine_available_memory(*args, **kwargs)
            self._helios_mark("first_run")
            if took_s := self.compilation_config.compilation_time:
                self.helios_parts.append(("compile", "first_run", began, began + took_s))
            return result

        def compile_or_warm_up_model(self, *args: Any, **kwargs: Any) -> Any:
            with _timed(self.model_runner, "capture_model", "warm_up", self.helios_parts):
                result = super().compile_or_warm_up_model(*args, **kwargs)
            self._helios_mark("warm_up")
            return result

        def sleep(self, level: int = 1) -> None:
            free, pinned = self._helios_free(), _pinned_bytes()
            super().sleep(level)
            self.helios_given_back_bytes += self._helios_free() - free
            self.helios_pinned_bytes = _pinned_bytes() - pinned

        def wake_up(self, tags: list[str] | None = None) -> None:
            free = self._helios_free()
            super().wake_up(tags)
            self.helios_given_back_bytes += self._helios_free() - free
            self.helios_pinned_bytes = 0
            _forget_pinned()

        def _helios_free(self) -> int:
            import torch

            return int(torch.cuda.mem_get_info(self.device)[0])

        def helios_swap(self, directory: str, served_names: list[str]) -> dict[str, Any]:
            """Become another model of the same shape: see `heliosd.engines.hot_swap`."""
            self.helios_marks, self.helios_parts = [], []
            began = time.monotonic()
            found = hot_swap.swap(self.model_runner, self.vllm_config, directory, served_names, self._helios_mark)
            # Meanwhile the tokenizer is read in the daemon: of `weights` the timeline has what was waited for besides.
            self.helios_parts.append(("read", "weights", began, self.helios_marks[0][1]))
            return {"compared": dataclasses.asdict(found), "report": self.helios_measure()}

        def helios_measure(self) -> dict[str, Any]:
            """Marks of the start, and bytes held; see `heliosd.engines.footprint` for what they mean."""
            return {
                "born_at": forked.born_at,
                "born_as": forked.born_as,
                "marks": self.helios_marks,
                "parts": self.helios_parts,
                "weights_bytes": self.helios_weights_bytes,
                "kv_cache_bytes": _storage_bytes(getattr(self.model_runner, "kv_caches", [])),
                "device_bytes": self._helios_held() if self.device.type == "cuda" else 0,
                "host_bytes": self.helios_pinned_bytes,
                **(self._helios_mapped() if self.device.type == "cpu" else {}),
            }

        def _helios_mapped(self) -> dict[str, int]:
            return loader_memory.held(self.model_runner.get_model().parameters())

        def _helios_held(self) -> int:
            """Of the device, by this process: what the driver says; where it does not, what was taken at the start
            and given back since. Others' starts and stops change what is free, but not while this one starts, sleeps
            or wakes."""
            told = _driver_bytes(self.device)
            if self.helios_started_bytes is None:
                import torch

                held = torch.cuda.memory_reserved(self.device)
                before = getattr(self, "init_snapshot", None)
                taken = held if before is None else max(held, before.free_memory - self._helios_free())
                self.helios_started_bytes = taken
                self.helios_driver_tells = told is not None and told >= held
            if told is not None and self.helios_driver_tells:
                return told
            return max(0, self.helios_started_bytes - self.helios_given_back_bytes)

    Measured.__name__ = Measured.__qualname__ = f"Measured{base.__name__}"
    return Measured


def _compile_again() -> None:
    """torch read when the zygote began that it shall compile nothing; this engine was started otherwise."""
    config: Any = importlib.import_module("torch._dynamo.config")
    config.disable = False


@contextmanager
def _timed(runner: Any, name: str, within: str, parts: list[tuple[str, str, float, float]]) -> Iterator[None]:
    """Note how long a call of the runner's method takes meanwhile, if it has that method and it is called."""
    theirs = getattr(runner, name, None)
    if theirs is None:
        yield
        return

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        result = theirs(*args, **kwargs)
        parts.append((name.partition("_")[0], within, began, time.monotonic()))
        return result

    setattr(runner, name, timed)
    try:
        yield
    finally:
        delattr(runner, name)


@contextmanager
def _before_packing(look: Callable[[Any], None]) -> Iterator[None]:
    """Have `look` called with the loaded model before vLLM packs weights for its kernels.

    On the CPU they go into a library's own memory then, and the model's parameters are emptied.
    """
    import vllm.model_executor.model_loader.base_loader as loader

    pack = getattr(loader, "process_weights_after_loading", None)
    if pack is None:
        raise changed("base_loader.process_weights_after_loading")

    def look_and_pack(model: Any, *args: Any, **kwargs: Any) -> Any:
        look(model)
        return pack(model, *args, **kwargs)

    loader.process_weights_after_loading = look_and_pack
    try:
        yield
    finally:
        loader.process_weights_after_loading = pack


def _driver_bytes(device: Any) -> int | None:
    """What the driver says this process holds; None where it knows processes by other numbers, as in a container."""
    import torch
    from vllm.third_party import pynvml

    try:
        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(card)
    except pynvml.NVMLError:
        return None
    return next((process.usedGpuMemory for process in running if process.pid == os.getpid()), None)


def _pinned_bytes() -> int:
    """Pinned host memory as PyTorch took it from the driver: each block is rounded up to a power of two."""
    import torch

    return int(torch.cuda.host_memory_stats().get("allocated_bytes.current", 0))


def _forget_pinned() -> None:
    """Give back what the weights lay in: PyTorch would keep it for the next time."""
    import torch

    torch.accelerator.empty_host_cache()


def _adapter_room(model: Any) -> list[Any]:
    """What is kept free for adapters: tensors, alone or in lists, that are neither parameters nor buffers."""
    return [value for layer in model.modules() for name, value in vars(layer).items() if "lora_" in name]


def _storage_bytes(tensors: Any) -> int:
    """Bytes of all distinct storages: a tied weight counts once."""
    return sum({(s.data_ptr(), s.device): s.nbytes() for s in _storages(tensors)}.values())


def _storages(tensors: Any) -> Iterator[Any]:
    for tensor in tensors.values() if isinstance(tensors, dict) else tensors:
        if hasattr(tensor, "untyped_storage"):
            yield tensor.untyped_storage()
        elif isinstance(tensor, list | tuple | dict):
            yield from _storages(tensor)


def __getattr__(name: str) -> Any:
    """Make the classes when they are asked for: only one of their bases can be imported on a machine."""
    theirs = {ours.rpartition(".")[2]: theirs for theirs, ours in NAMES.items()}.get(name)
    if theirs is None:
        raise AttributeError(name)
    module, _, cls = theirs.rpartition(".")
    made = globals()[name] = _measured(getattr(importlib.import_module(module), cls))
    return made
