"""What decides whether two engines compile alike."""

import hashlib
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from heliosd.core.hardware import Device, DeviceKind
from heliosd.engines.engine import LaunchSpec
from heliosd.engines.warmup_manifest import facts_of

_COMPILERS = ("torch", "triton", "flashinfer-python")


def compiles_on_host(spec: LaunchSpec) -> bool:
    """Engines on the host run without compiling anything, unless the operator set `enforce_eager = false`."""
    on_host = any(device.kind is DeviceKind.HOST for device in spec.devices)
    return on_host and spec.engine_args.get("enforce_eager") is False


def warmup_facts(spec: LaunchSpec, engine: str | None) -> Mapping[str, str] | None:
    """None for an engine that compiles nothing, or of which nothing is to be kept."""
    on_host = any(device.kind is DeviceKind.HOST for device in spec.devices)
    if not spec.revision or (on_host and not compiles_on_host(spec)):
        return None
    return facts_of(
        {
            "revision": spec.revision,
            **engine_facts(engine or "unknown"),
            **device_facts(spec.devices[0]),
            "devices": len(spec.devices),
            "stages": spec.pipeline_parallel,
            "dtype": spec.dtype,
            "max_model_len": spec.max_model_len,
            "max_num_seqs": spec.max_num_seqs,
            "arguments": {name: repr(value) for name, value in spec.engine_args.items()},
        }
    )


def engine_facts(engine: str) -> dict[str, str]:
    """Of the software: `engine` is the version of the engine's package."""
    compilers = {name: _installed(name) for name in _COMPILERS}
    return {"engine": engine, "machine": platform.machine(), "python": platform.python_version(), **compilers}


def device_facts(device: Device) -> dict[str, str]:
    """Of one device; on the host, of its processor: what was compiled for another may not even run."""
    on_host = device.kind is DeviceKind.HOST
    told = {"device_kind": device.kind.value, "device": device.name, "capability": device.compute_capability}
    return facts_of({**told, "processor": _processor() if on_host else ""})


@cache
def _processor() -> str:
    """A hash of its name and of the instructions that it knows."""
    found: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "flags", "Features", "CPU part"):
                found.setdefault(name.strip(), value.strip())
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
