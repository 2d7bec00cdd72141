"""Deaths for want of memory are told from other deaths, with the bytes in question: over the texts as printed."""

import pytest

from heliosd.core.oom import Shortage, out_of_memory
from heliosd.core.units import GiB, MiB

TORCH = (
    "killed\nTraceback (most recent call last):\n"
    '  File "worker.py", line 1, in load_model\n'
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB "
    "of which 1.00 GiB is free. Including non-PyTorch memory, this process has 78.09 GiB memory in use. Of the "
    "allocated memory 77.21 GiB is allocated by PyTorch, and 213.31 MiB is reserved by PyTorch but unallocated."
)
OLD_TORCH = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 23.69 GiB total capacity; "
    "22.10 GiB already allocated; 6.94 MiB free; 22.45 GiB reserved in total by PyTorch)"
)
TO_THE_BYTE = (
    "CUDA out of memory. Tried to allocate 512 bytes. GPU 1 has a total capacity of 8.00 GiB of which 0 bytes is free."
)
RUNTIME = "RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"
CUMEM = "Call to wake_up method failed: CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:139"
CUBLAS = "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
NCCL = (
    "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2251, unhandled cuda error\n"
    "Last error:\nCuda failure 2 'out of memory'"
)
WARM_UP = (
    "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests. Please try lowering "
    "`max_num_seqs` or `gpu_memory_utilization` when initializing the engine."
)
NO_CACHE = (
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing "
    "the engine (this flag also controls CPU memory reservation on the CPU backend, despite its name)."
)
SMALL_CACHE = (
    "ValueError: To serve at least one request with the model's max seq len (32768), (4.00 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (1.50 GiB). Based on the available memory, the estimated "
    "maximum model length is 12288. Try increasing `gpu_memory_utilization`"
)
AT_START = (
    "ValueError: Free memory on device cuda:0 (10.25/79.10 GiB) on startup is less than desired GPU memory utilization "
    "(0.92, 72.77 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
AT_START_BESIDE_WEIGHTS = (
    "ValueError: Free memory on device cuda (10.25/79.10 GiB) on startup is less than the engine's budget after "
    "excluding external process's weights (0.92, 60.00 GiB). Decrease GPU memory utilization"
)
CPU_AT_START = (
    "ValueError: Available memory on node 0 (3.50/16.00 GiB) on startup is less than desired CPU memory utilization "
    "(0.92, 14.72 GiB). On the CPU backend, the `--gpu-memory-utilization` flag"
)
CPU_ALLOCATOR = (
    "RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
    "to allocate 17179869184 bytes. Error code 12 (Cannot allocate memory)"
)
WINDOWS_WORDS = "RuntimeError: DefaultCPUAllocator: not enough memory: you tried to allocate 4096 bytes."
PYTHON = 'Traceback (most recent call last):\n  File "x.py", line 1\nMemoryError'
NUMPY = "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB for an array\nMemoryError: no"
KERNEL = "Out of memory: Killed process 4711 (VLLM::EngineCor) total-vm:123kB, anon-rss:77kB"
CGROUP = "Memory cgroup out of memory: Killed process 4711 (python3) total-vm:123kB"


@pytest.mark.parametrize(
    ("cause", "shortage"),
    [
        (TORCH, Shortage(False, 2 * GiB, GiB)),
        (OLD_TORCH, Shortage(False, 20 * MiB, round(6.94 * MiB))),
        (TO_THE_BYTE, Shortage(False, 512, 0)),
        (RUNTIME, Shortage(False)),
        (CUMEM, Shortage(False)),
        (CUBLAS, Shortage(False)),
        (NCCL, Shortage(False)),
        (WARM_UP, Shortage(False)),
        (NO_CACHE, Shortage(False, None, 0)),
        (SMALL_CACHE, Shortage(False, 4 * GiB, round(1.5 * GiB))),
        (AT_START, Shortage(False, round(72.77 * GiB), round(10.25 * GiB))),
        (AT_START_BESIDE_WEIGHTS, Shortage(False, 60 * GiB, round(10.25 * GiB))),
        (CPU_AT_START, Shortage(True, round(14.72 * GiB), round(3.5 * GiB))),
        (CPU_ALLOCATOR, Shortage(True, 16 * GiB)),
        (WINDOWS_WORDS, Shortage(True, 4096)),
        (PYTHON, Shortage(True)),
        (NUMPY, Shortage(True, round(7.45 * GiB))),
        (KERNEL, Shortage(True)),
        (CGROUP, Shortage(True)),
    ],
)
def test_the_bytes_are_read(cause: str, shortage: Shortage) -> None:
    assert out_of_memory(cause) == shortage


@pytest.mark.parametrize(
    "cause",
    [
        "",
        "killed by SIGKILL (by hand, or by the kernel for want of memory)",
        "killed by SIGSEGV; it said last:\nINFO Available KV cache memory: 3.2 GiB",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "RuntimeError: NCCL error: unhandled system error",
        "ValueError: the weights are corrupt",
        "not ready after 300 s",
        "RuntimeError: NVML ECC uncorrectable MemoryErrors were counted",
    ],
)
def test_other_deaths_are_not_taken_for_it(cause: str) -> None:
    assert out_of_memory(cause) is None


def test_the_last_of_several_counts() -> None:
    assert out_of_memory(f"{OLD_TORCH}\nretrying\n{TORCH}") == Shortage(False, 2 * GiB, GiB)


def test_what_is_missing_is_known_when_both_numbers_are() -> None:
    assert Shortage(False, 3 * GiB, GiB).missing_bytes == 2 * GiB
    assert Shortage(False, GiB, 3 * GiB).missing_bytes == 0
    assert Shortage(True, GiB).missing_bytes == 0
