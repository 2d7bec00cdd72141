"""Imported once, in the zygote: what every vLLM engine would otherwise import and set up by itself.

Four patches of vLLM are here, three measured to be worth it and one about rounding; each first looks whether vLLM
still is as it was when it was written, so that a new release is refused with the name of what changed instead of
starting slowly or wrongly. Never touches CUDA: a process that has cannot be forked.
"""

import gc
import importlib
import os
import weakref
from functools import lru_cache
from importlib import metadata
from typing import Any, cast

from heliosd.engines.changed import changed

_COMMON = (
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.structured_output",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.models.bert",
    "vllm.model_executor.models.registry",
    "vllm.model_executor.model_loader",
    "vllm.model_executor.model_loader.default_loader",
    "vllm.model_executor.model_loader.dummy_loader",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.tokenizers.registry",
    "transformers.models.auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama",
    "transformers.models.llama.configuration_llama",
    "transformers.tokenization_utils_tokenizers",
    "torch._dynamo",
    "torch._dynamo.trace_rules",
    "torch._inductor.config",
    "xgrammar",
    "heliosd.engines.worker",
)
_BY_PLATFORM = {
    "cpu": (
        "vllm.v1.worker.cpu_worker",
        "vllm.v1.worker.cpu_model_runner",
        "vllm.v1.attention.backends.cpu_attn",
    ),
    "cuda": ("vllm.v1.worker.gpu_worker", "vllm.v1.worker.gpu_model_runner"),
}


def import_all() -> None:
    """Import what an engine imports. A missing module is an error with its name."""
    from vllm.platforms import current_platform

    platform = "cpu" if current_platform.is_cpu() else "cuda"
    for name in (*_COMMON, *_BY_PLATFORM[platform]):
        importlib.import_module(name)
    if platform == "cpu":
        current_platform.import_kernels()
        attention_without_amx()
    # Built on first use, 0.3 s, by the first torch.compile decorator that is called.
    importlib.import_module("torch._dynamo.trace_rules").get_torch_obj_rule_map()


def register_kernels_once() -> None:
    """Do vLLM's replacement of Triton kernels here: in the engine it took 0.9 s at each start."""
    from vllm.platforms import current_platform

    platform: Any = type(current_platform)
    if not callable(getattr(platform, "register_triton_kernel_overrides", None)):
        raise changed("Platform.register_triton_kernel_overrides")
    if not current_platform.is_cpu():
        return
    platform.register_triton_kernel_overrides()
    platform.register_triton_kernel_overrides = classmethod(lambda cls: None)


class _Promise:
    """Stands for a tokenizer that nobody has asked for yet."""

    def __init__(self, model_config: Any) -> None:
        self.model_config = model_config


_grammars: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""What makes grammars in this engine process, and keeps a tokenizer for it."""


def forget_tokenizer(model_config: Any) -> None:
    """The engine has become another model: its next grammar is made with that one's tokenizer."""
    for manager in list(_grammars):
        manager.backend = None
        manager.tokenizer = _Promise(model_config)


def tokenizer_on_demand() -> None:
    """Have the grammar code load its tokenizer when the first grammar is asked for, not at each start (0.5 s)."""
    module: Any = importlib.import_module("vllm.v1.structured_output")
    load = getattr(module, "cached_tokenizer_from_config", None)
    manager: Any = getattr(module, "StructuredOutputManager", None)
    names = manager.__init__.__code__.co_names if manager is not None else ()
    if load is None or "tokenizer" not in names or "cached_tokenizer_from_config" not in names:
        raise changed("StructuredOutputManager.tokenizer")

    def get(self: Any) -> Any:
        value = self.__dict__["_tokenizer"]
        if isinstance(value, _Promise):
            value = self.__dict__["_tokenizer"] = load(model_config=value.model_config)
        return value

    def put(self: Any, value: Any) -> None:
        self.__dict__["_tokenizer"] = value
        _grammars.add(self)

    module.cached_tokenizer_from_config = _Promise
    manager.tokenizer = property(get, put)


def attention_without_amx() -> None:
    """Have attention on the CPU round alike on processors with and without AMX tiles, with vLLM's vector kernel.

    Both kernels are right: against float32 the logprobs of 805 tokens are off by 0.006 on average with either. But
    bfloat16 decides near ties by its rounding, and SmolLM2's answer to "What is the capital of France?" begins with
    one ("The" -1.77, "L" -1.90; with AMX -1.96 and -1.83).
    """
    module: Any = importlib.import_module("vllm.v1.attention.backends.cpu_attn")
    choose = getattr(module, "_get_attn_isa", None)
    if choose is None:
        raise changed("cpu_attn._get_attn_isa")

    def without_amx(*args: Any, **kwargs: Any) -> str:
        isa = str(choose(*args, **kwargs))
        return "vec" if isa == "amx" else isa

    module._get_attn_isa = without_amx


def installed_plugins_once() -> None:
    """Read here which plug-ins are installed: each engine would go through all packages again, twice (0.06 s)."""
    cast(Any, metadata).entry_points = lru_cache(metadata.entry_points)
    for group in ("vllm.general_plugins", "vllm.platform_plugins", "vllm.logits_processors"):
        metadata.entry_points(group=group)


def register_loader() -> None:
    """Make vLLM know our load format in every engine, also where our package's entry points are not installed."""
    importlib.import_module("heliosd.engines.loader").register()


def log_to_output() -> None:
    """Have vLLM write its log to the standard output, which in an engine is the engine's log file."""
    from vllm.config.logging import LoggingConfig
    from vllm.logger import configure_logging

    configure_logging(LoggingConfig())


def preload() -> None:
    """All of it, then freeze the heap: the collector in each engine need not look at it again (1.4 s)."""
    gc.disable()  # nothing of what is imported is garbage; looking for it takes a second
    import_all()
    log_to_output()
    register_kernels_once()
    register_loader()
    tokenizer_on_demand()
    installed_plugins_once()
    gc.collect()
    gc.freeze()
    gc.enable()


if os.environ.get("HELIOS_ZYGOTE") == "1":  # importing this file elsewhere, for a look at it, changes nothing
    preload()
