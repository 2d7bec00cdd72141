"""The real pynvml over a driver library that the tests build: `with fake_driver(folder) as driver`.

Each library gets a copy of the module pynvml of its own, told where its library is. So the fake one is never the
process's libnvidia-ml.so.1, and tests on a real GPU may run beside these.
"""

import contextlib
import ctypes
import functools
import importlib.util
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heliosd.core.units import MiB

SOURCE = Path(__file__).with_name("fake_nvml.c")
ENVIRONMENT = "HELIOS_FAKE_NVML"
H100_BYTES = 81559 * MiB
RESERVED_BYTES = 600 * MiB
SLICE_BYTES = 9984 * MiB
NOT_TOLD = 2**64 - 1
"""What the driver puts for a process's memory in a container."""

GPU_IS_LOST = 15
RESET_REQUIRED = 16
DRIVER_NOT_LOADED = 9
VERSION_MISMATCH = 18
UNKNOWN = 999


def _fields(*groups: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_uint64) for group in groups for name in group.split()]


class Process(ctypes.Structure):
    _fields_ = _fields("pid used_bytes")


class Memory(ctypes.Structure):
    _fields_ = _fields("total reserved used")


class _HasProcesses(ctypes.Structure):
    def run(self, pid: int, used_bytes: int) -> None:
        """Let a process hold memory here; the device's own use grows with it when the driver tells."""
        self.processes[self.n_processes] = Process(pid, used_bytes)
        self.n_processes += 1
        self.memory.used += 0 if used_bytes == NOT_TOLD else used_bytes


class Slice(_HasProcesses):
    _fields_ = [
        ("memory", Memory),
        *_fields("instance n_processes"),
        ("processes", Process * 8),
        ("uuid", ctypes.c_char * 96),
        ("name", ctypes.c_char * 96),
    ]


class Gpu(_HasProcesses):
    _fields_ = [
        *_fields("error hang_ms"),
        ("memory", Memory),
        *_fields("utilization temperature power_mw power_limit_mw ecc numa major minor pcie_generation pcie_width"),
        *_fields("nvlink pcie_switch xid xid_instance double_bit mig n_slices n_processes"),
        ("processes", Process * 8),
        ("slices", Slice * 7),
        ("uuid", ctypes.c_char * 96),
        ("name", ctypes.c_char * 96),
    ]

    def slice_up(self, *places: int) -> None:
        """Turn MIG on, with a slice in each of these places."""
        self.mig = 1
        for place in places:
            one = self.slices[place]
            one.memory = Memory(SLICE_BYTES, 0, 0)
            one.instance = 7 + place
            one.uuid = self.uuid.replace(b"GPU", b"MIG%d" % place)
            one.name = self.name + b" MIG 1g.10gb"


class State(ctypes.Structure):
    _fields_ = [*_fields("init_error error n_gpus"), ("driver", ctypes.c_char * 96), ("gpus", Gpu * 16)]

    def furnish(self, n_gpus: int) -> None:
        """H100s on two sockets, all joined by NVLink."""
        self.driver = b"580.95.05"
        self.n_gpus = n_gpus
        for index in range(n_gpus):
            self.gpus[index] = Gpu(
                memory=Memory(H100_BYTES, RESERVED_BYTES, 0),
                temperature=35 + index,
                power_mw=70_500,
                power_limit_mw=700_000,
                numa=index * 2 // n_gpus,
                major=9,
                pcie_generation=5,
                pcie_width=16,
                nvlink=1,
                uuid=b"GPU-%08d" % index,
                name=b"NVIDIA H100 80GB HBM3",
            )


class FakeDriver:
    """A driver whose GPUs a test may change while a probe reads them."""

    def __init__(self, state: State, nvml: Any) -> None:
        self.state = state
        self.gpus = state.gpus
        self.nvml = nvml
        """The module pynvml, talking to this driver."""


@functools.cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="fake-nvml-")  # removed when the interpreter ends


@functools.cache
def library(build: str) -> Path:
    """The compiled libnvidia-ml.so.1: TODAY, OLD or ANCIENT."""
    built = Path(_folder().name) / build.lower() / "libnvidia-ml.so.1"
    built.parent.mkdir()
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-D{build}"]
    subprocess.run(["gcc", *flags, "-o", built, SOURCE], check=True)
    return built


@functools.cache
def pynvml_over(build: str) -> Any:
    """A copy of the module pynvml that has loaded our library."""
    original = importlib.util.find_spec("pynvml")
    assert original is not None and original.origin is not None
    name = f"pynvml_over_{build.lower()}"
    spec = importlib.util.spec_from_file_location(name, original.origin)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pynvml looks itself up there while it is imported
    spec.loader.exec_module(module)
    module.nvmlLib = ctypes.CDLL(str(library(build)))
    return module


@contextlib.contextmanager
def fake_driver(folder: Path, build: str = "TODAY", n_gpus: int = 8) -> Iterator[FakeDriver]:
    """A driver with `n_gpus` H100s. `folder` keeps its state; close the probe before leaving."""
    file = folder / "gpus"
    file.write_bytes(bytes(ctypes.sizeof(State)))
    with file.open("r+b") as opened:
        state = State.from_buffer(mmap.mmap(opened.fileno(), ctypes.sizeof(State)))
    state.furnish(n_gpus)
    before = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = str(file)
    try:
        yield FakeDriver(state, pynvml_over(build))
    finally:
        os.environ.pop(ENVIRONMENT)
        if before is not None:
            os.environ[ENVIRONMENT] = before
