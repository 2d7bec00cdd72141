"""What decides whether two engines compile alike."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from heliosd.core.hardware import DeviceKind
from heliosd.engines.engine import LaunchSpec
from heliosd.engines.warmups import facts_of

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
            "engine": engine or "unknown",
            "device_kind": spec.devices[0].kind.value,
            "device": spec.devices[0].name,
            "capability": spec.devices[0].compute_capability,
            "devices": len(spec.devices),
            "dtype": spec.dtype,
            "max_model_len": spec.max_model_len,
            "max_num_seqs": spec.max_num_seqs,
            "arguments": {name: repr(value) for name, value in spec.engine_args.items()},
            "machine": platform.machine(),
            "python": platform.python_version(),
            **{name: _installed(name) for name in _COMPILERS},
        }
    )


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
