"""What the node looks like at one moment, for showing. A snapshot informs; it never gates a decision."""

from dataclasses import dataclass

from heliosd.core.exhaustion import NOT_IN_SIGHT, Exhaustion
from heliosd.core.hardware import Device, DeviceReading, Space
from heliosd.core.lifecycle import State
from heliosd.core.messages import Footprint, Priority
from heliosd.core.names import DeviceId, ReplicaId, Ticket


@dataclass(frozen=True, slots=True)
class DeviceAccount:
    """The ledger's columns for one device. `free_bytes` is what may still be promised."""

    device: Device
    reading: DeviceReading | None
    """None until the device was first read."""
    foreign_bytes: int
    safety_bytes: int
    promised: Footprint
    """Sum over the replicas on this device."""
    measured_bytes: int
    free_bytes: int
    drift_bytes: int = 0
    """What the device says ours hold, minus what they were measured to hold."""
    exhaustion: Exhaustion = NOT_IN_SIGHT
    """When it will be full."""
    drained: bool = False
    """An operator has taken it out."""


@dataclass(frozen=True, slots=True)
class HostAccount:
    """The host memory that sleeping replicas may hold."""

    limit_bytes: int
    staged_bytes: int
    free_bytes: int
    """What another sleeper may take: of the limit, and of what the machine has left."""
    tier_bytes: int = 0
    """Held by models that are kept ready to load; they give way to sleepers."""
    shell_bytes: int = 0
    """Held by processes made ahead of need; they give way to all others."""


@dataclass(frozen=True, slots=True)
class ShellsStatus:
    """The processes of one kind of engine that were made ahead, for starts to begin in."""

    wanted: int
    waiting: int
    making: bool
    own_bytes: int
    """What those that wait hold, besides what they share."""
    why: str = ""
    """Why there are fewer than wanted, where that is not just for a moment."""


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """What a replica, or the daemon, holds, and whether it leaks."""

    pss_bytes: int | None
    """Of the machine's RAM, pages shared by n processes counted as 1/n; None: it has no process of its own."""
    device_bytes: int | None
    """Of all its devices, as their driver says; None: it does not."""
    host_floor_bytes: int
    """The least that it held alone of the machine's RAM, lately and while idle; 0: not known yet."""
    device_floor_bytes: int
    slope_bytes_per_s: float
    """Zero where nothing lasting grows."""
    suspected: bool
    why: str


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    id: ReplicaId
    model: str
    revision: str
    state: State
    devices: tuple[DeviceId, ...]
    leases: frozenset[Ticket]
    promised: Footprint
    """Per device."""
    measured: Footprint | None
    started_at: float
    """On the node's monotonic clock, as all times here."""
    idle_since: float | None
    """None while it has leases."""
    keep_alive_s: float
    level: int = 0
    """At which it sleeps; 0: it does not."""
    limit: int = 0
    """Requests it may work on at once now."""
    kv_used_ratio: float = 0.0
    """Of its KV cache, as the engine last said."""
    pinned: bool = False
    memory: MemoryStatus | None = None
    """None: it does not serve, or was not read yet."""


@dataclass(frozen=True, slots=True)
class Waiting:
    ticket: Ticket
    model: str
    since: float
    reason: str
    position: int = 0
    """How many requests go before it, as it looks now."""
    eta_s: float | None = None
    """Seconds until it is served, as it looks now; None: nobody can tell."""
    priority: Priority = Priority.NORMAL
    key: str = ""
    """The API key's id; empty where none was needed."""


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A model that must not be started on some devices, or only as a trial."""

    model: str
    devices: tuple[DeviceId, ...]
    state: str
    """`open` or `half-open`."""
    failures: int
    """In a row."""
    retry_at: float
    cause: str


@dataclass(frozen=True, slots=True)
class PreloadCount:
    """What became of replicas that were started before anyone asked."""

    unasked: int = 0
    """They run, and nobody has asked for them yet."""
    hits: int = 0
    misses: int = 0
    wasted_byte_s: float = 0.0
    """Bytes times seconds that the misses held."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    at: float
    devices: tuple[DeviceAccount, ...]
    replicas: tuple[ReplicaStatus, ...]
    waiting: tuple[Waiting, ...]
    draining: bool
    host: HostAccount = HostAccount(0, 0, 0)
    breakers: tuple[BreakerStatus, ...] = ()
    preloads: PreloadCount = PreloadCount()
    daemon: MemoryStatus | None = None
    recycles: tuple[tuple[str, str, int], ...] = ()
    """Model, where it leaked, how many replicas were recycled for it."""
    spaces: tuple[tuple[Space, Exhaustion], ...] = ()
    """What is no device, and when it will be full."""
