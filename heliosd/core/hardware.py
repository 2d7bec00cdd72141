"""Devices as the core sees them: what memory there is, and one reading of its use."""

from dataclasses import dataclass, field
from enum import StrEnum

from heliosd.core.names import DeviceId


class DeviceKind(StrEnum):
    CUDA = "cuda"
    """A whole NVIDIA GPU."""
    MIG = "mig"
    """A slice of one."""
    HOST = "host"
    """The share of the machine's RAM set aside for engines on the CPU."""
    SIMULATED = "simulated"


class LinkKind(StrEnum):
    """How two devices reach one another, nearest first."""

    NVLINK = "nvlink"
    PCIE_SWITCH = "pcie switch"
    PCIE_HOST = "pcie host bridge"
    NUMA = "same numa node"
    SYSTEM = "across numa nodes"


@dataclass(frozen=True, slots=True)
class Device:
    """What does not change while the daemon runs."""

    id: DeviceId
    kind: DeviceKind
    name: str
    capacity_bytes: int
    """All memory that could ever be used: for a GPU total minus what the driver reserves."""
    index: int = 0
    """NVML's number of the GPU; for a slice, of its parent."""
    parent: DeviceId | None = None
    """The GPU a MIG slice belongs to."""
    compute_capability: tuple[int, int] | None = None
    numa_node: int | None = None
    links: tuple[tuple[DeviceId, LinkKind], ...] = ()
    driver_version: str | None = None
    pcie: tuple[int, int] | None = None
    """Generation and width of the link now."""


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """Memory one process holds on a device; None where the driver will not say (in containers)."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One look at a device. Fields a device does not offer are None."""

    device: DeviceId
    used_bytes: int
    """All processes together."""
    free_bytes: int
    processes: tuple[ProcessUse, ...] = ()
    utilization_ratio: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    ecc_errors: int | None = None
    """Uncorrected, since the driver started."""
    fault: str | None = None
    """Set when the device cannot be used: lost, fallen off the bus, uncorrectable error."""


@dataclass(frozen=True, slots=True)
class HostReading:
    """One look at the machine's RAM."""

    total_bytes: int
    available_bytes: int
    """What could be taken without swapping, as the kernel estimates it."""


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What processes hold of the machine's RAM, all of one replica together."""

    pss_bytes: int
    """Pages shared by n processes counted as 1/n."""
    own_bytes: int
    """Of that, what is no file's: what a leak is made of."""


@dataclass(frozen=True, slots=True)
class Space:
    """How full a place is that is no device: `store`, `state`, `host` (what sleepers may hold)."""

    name: str
    used_bytes: int
    left_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceFault:
    """Something the driver told of its own accord: an Xid, a lost GPU."""

    device: DeviceId
    message: str
    xid: int | None = None
    fatal: bool = field(default=False)
