"""The environment of the zygote and so of every vLLM engine.

None of it is set for the daemon itself. In that, `adapter` keeps vLLM from taking over the log, and takes back at once
what vLLM writes while it makes a configuration.
"""

import importlib.util
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from heliosd.core.hardware import DeviceKind
from heliosd.core.secrets import without_secrets


def surroundings(device: DeviceKind, threads: int | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """All variables for engines on this kind of device.

    What the operator has set for the daemon stays, except secrets.
    """
    ours = {
        "HELIOS_ZYGOTE": "1",
        # Engines get a directory; nothing is looked up or reported anywhere else.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_CONFIGURE_LOGGING": "1",
        "VLLM_LOGGING_LEVEL": inherited.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "NO_COLOR": "1",
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if device is DeviceKind.HOST:
        ours |= _for_host(threads if threads is not None else max(1, len(os.sched_getaffinity(0)) - 1))
    else:
        ours["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as NVML numbers them
    return without_secrets(inherited) | ours


def _for_host(threads: int) -> dict[str, str]:
    preload = [
        *_libraries("vllm", "libs/libtcmalloc*.so*"),
        *_libraries("torch", "lib/libgomp*.so*", "../torch.libs/libgomp*.so*"),
    ]
    return {
        "CUDA_VISIBLE_DEVICES": "",  # what these engines take is booked on the host alone
        "OMP_NUM_THREADS": str(threads),
        # Idle OpenMP threads spin: five engines on two cores were ten times slower for it.
        "GOMP_SPINCOUNT": "1000",
        # One sampler function is compiled even in eager mode, 17 s at the first request with logprobs.
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # As vLLM itself does before it starts a worker.
        "LD_PRELOAD": ":".join(str(library) for library in preload),
        "LOCAL_WORLD_SIZE": "1",
        "VLLM_DISABLE_SHARED_EXPERTS_STREAM": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }


def _libraries(package: str, *patterns: str) -> list[Path]:
    """The first library of an installed package that fits, found without importing the package."""
    spec = importlib.util.find_spec(package)
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    found = [file for root in roots for pattern in patterns for file in sorted(root.glob(pattern))]
    return [file.resolve() for file in found[:1]]


def vllm_version() -> str | None:
    """Of the installed vLLM, without importing it; None when there is none."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def installed(modules: Mapping[str, str]) -> frozenset[str]:
    """Which of these modules, the mapping's values, are installed, without importing them."""
    return frozenset(module for module in modules.values() if importlib.util.find_spec(module) is not None)
