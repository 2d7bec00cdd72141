"""Whether an engine died for want of memory, and how much it asked for: read out of its own last words.

The texts are those of PyTorch's allocators, of the CUDA libraries, of vLLM's checks at its start, of Python and of the
Linux kernel. A SIGKILL alone proves nothing: anybody may have sent it.
"""

import re
from dataclasses import dataclass

from heliosd.core.units import parse_bytes


@dataclass(frozen=True, slots=True)
class Shortage:
    """Memory that was asked for and was not there."""

    host: bool
    """In host memory; otherwise on a device."""
    asked_bytes: int | None = None
    """None: it was not told."""
    free_bytes: int | None = None
    """Of the device, or of the part of it that was meant for the purpose; None: it was not told."""

    @property
    def missing_bytes(self) -> int:
        """How much more would have been enough for what was asked last; 0 when it was not told."""
        if self.asked_bytes is None or self.free_bytes is None:
            return 0
        return max(0, self.asked_bytes - self.free_bytes)


_SIZE = r"[0-9]+(?:\.[0-9]+)?"
_TOLD = rf"{_SIZE} (?:bytes|[KMGT]iB)"

_DEVICE = re.compile(
    r"(?:CUDA|HIP|XPU) out of memory"
    r"|(?:CUDA|HIP) error: out of memory"
    r"|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|CUSOLVER_STATUS_ALLOC_FAILED|CUSPARSE_STATUS_ALLOC_FAILED"
    r"|\bNCCL\b[^\n]*\bout of memory\b|Cuda failure[^\n]*'out of memory'"
    r"|torch(?:\.cuda)?\.OutOfMemoryError",
    re.IGNORECASE,
)
_TRIED = re.compile(rf"Tried to allocate ({_TOLD})")
_DEVICE_FREE = re.compile(rf"of which ({_TOLD}) is free|; ({_TOLD}) free;")

_NO_CACHE = re.compile(r"No available memory for the cache blocks")
_CACHE_TOO_SMALL = re.compile(
    rf"({_SIZE} GiB) KV\s+cache is needed, which is larger than the available KV\s+cache\s+memory \(({_SIZE} GiB)\)"
)
_AT_START = re.compile(
    rf"(Free|Available) memory on (?:device|node) [^\n(]*(?:\([^\n()]*\))?[^\n(]*\(({_SIZE})/{_SIZE} GiB\) on startup"
    rf" is less than [^\n(]*\({_SIZE}, ({_SIZE}) GiB\)"
)

_HOST = re.compile(
    r"DefaultCPUAllocator: (?:not enough memory|can't allocate memory)"
    r"|^MemoryError\b"
    r"|std::bad_alloc"
    r"|OSError: \[Errno 12\]|Cannot allocate memory"
    r"|(?:Out of memory|Memory cgroup out of memory): Kill(?:ed)? process"
    r"|killed by the OOM killer|oom-kill:",
    re.IGNORECASE | re.MULTILINE,
)
_HOST_TRIED = re.compile(r"you tried to allocate ([0-9]+) bytes")
_ARRAY_TRIED = re.compile(rf"Unable to allocate ({_TOLD})")


def out_of_memory(cause: str) -> Shortage | None:
    """Recognise a death for want of memory, with the bytes asked for and free where they are told; else None.

    When several are told, as after a retry, the last one counts: it is what the engine died of.
    """
    if told := _last(_AT_START, cause):
        return Shortage(told[1] == "Available", _bytes(f"{told[3]} GiB"), _bytes(f"{told[2]} GiB"))
    if told := _last(_CACHE_TOO_SMALL, cause):
        return Shortage(False, _bytes(told[1]), _bytes(told[2]))
    if _NO_CACHE.search(cause):
        return Shortage(False, None, 0)
    if _DEVICE.search(cause):
        tried, free = _last(_TRIED, cause), _last(_DEVICE_FREE, cause)
        return Shortage(False, _bytes(tried[1]) if tried else None, _bytes(free[1] or free[2]) if free else None)
    if _HOST.search(cause):
        tried = _last(_HOST_TRIED, cause)
        array = _last(_ARRAY_TRIED, cause)
        asked = int(tried[1]) if tried else _bytes(array[1]) if array else None
        return Shortage(True, asked)
    return None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for found in pattern.finditer(text):  # noqa: B007 - the last is wanted
        pass
    return found


def _bytes(told: str) -> int:
    return parse_bytes(told.removesuffix("bytes"))
