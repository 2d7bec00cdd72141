"""How the NVIDIA driver's errors are read: what is merely absent, what breaks one device, what breaks all.

`nvml` is always the module `pynvml`, handed in: it is imported by the probe's own thread, and tests hand in one
that talks to another library.
"""

from collections.abc import Callable
from typing import Any

from heliosd.errors import HeliosError, Unavailable

LIBRARY = "libnvidia-ml.so.1"

# Numbers of nvml.h, which never change. Any of these means that the device or the driver is gone; every other error of
# an optional question (power on a laptop GPU, utilization under MIG) only means that there is no answer to it.
_UNINITIALIZED = 1
_NO_PERMISSION = 4
_DRIVER_NOT_LOADED = 9
_LIBRARY_NOT_FOUND = 12
_FUNCTION_NOT_FOUND = 13
_GPU_IS_LOST = 15
_RESET_REQUIRED = 16
_VERSION_MISMATCH = 18
_GPU_NOT_FOUND = 28
_BROKEN = frozenset(
    {_UNINITIALIZED, _DRIVER_NOT_LOADED, _GPU_IS_LOST, _RESET_REQUIRED, _VERSION_MISMATCH, _GPU_NOT_FOUND}
)

_DEVICE_ADVICE = {
    _GPU_IS_LOST: "it has fallen off the bus; restart the machine",
    _RESET_REQUIRED: "reset it with nvidia-smi --gpu-reset, or restart the machine",
    _DRIVER_NOT_LOADED: "the NVIDIA driver is gone; load it and restart heliosd",
}
_DRIVER_ADVICE = {
    _NO_PERMISSION: "heliosd may not open /dev/nvidia*; give its user, or its container, the GPUs",
    _DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded; run modprobe nvidia, or restart the machine",
    _LIBRARY_NOT_FOUND: f"{LIBRARY} is not on this machine; install the NVIDIA driver",
    _FUNCTION_NOT_FOUND: "the NVIDIA driver is too old; install a newer one",
    _VERSION_MISMATCH: "the driver's library and its kernel module are of different versions; restart the machine",
}


def ask(nvml: Any, question: Callable[..., Any], *args: Any) -> Any | None:
    """The answer, or None where this driver or device has none. Raises NVMLError when the device is broken."""
    try:
        return question(*args)
    except nvml.NVMLError as error:
        if error.value in _BROKEN:
            raise
        return None


def too_old(error: Any) -> bool:
    """Whether this NVMLError says that the driver lacks the function."""
    return bool(error.value == _FUNCTION_NOT_FOUND)


def device_fault(error: Any) -> str:
    """What an NVMLError says about one device, with what to do about it."""
    advice = _DEVICE_ADVICE.get(error.value)
    return f"{error}: {advice}" if advice else str(error)


def driver_unusable(error: Any) -> HeliosError:
    """The error to raise when no GPU can be read at all."""
    advice = _DRIVER_ADVICE.get(error.value, "nvidia-smi may say more")
    return Unavailable(f"cannot read the GPUs: {advice}", retry_after_s=60.0, code="gpus_unreadable", cause=str(error))
