"""What can happen and what can be done about it: events in, commands out, all of it plain data.

Every event carries its time `at`, in seconds on the node's monotonic clock. Nothing here knows how a command
is carried out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from heliosd.core.adapters import AdapterRoom
from heliosd.core.hardware import Device, DeviceKind, DeviceReading, HostReading, ProcessMemory, Space
from heliosd.core.leaks import LeakPolicy
from heliosd.core.names import DeviceId, PeerName, ReplicaId, Ticket
from heliosd.core.peer_news import PeerNews
from heliosd.core.places import Placed, TierSpeed
from heliosd.core.remembered import Remembered
from heliosd.core.start_forecast import SeenStart


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes on one device, split as the ledger and the API show them. Used for predictions and measurements."""

    weights_bytes: int
    kv_cache_bytes: int
    overhead_bytes: int
    """Activation peak, graphs, context, the engine process itself."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes


@dataclass(frozen=True, slots=True)
class Basis:
    """What a prediction rested on; kept with what is measured, so that the next one can learn from it."""

    architecture: str
    device_name: str
    likely: Footprint
    """Without the margin that is booked on top."""
    law: Mapping[str, int]
    """Bytes of each term before anything measured corrected them."""
    features: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a replica of one revision needs, as estimated before the scheduler is asked."""

    model: str
    """The ref as served: equal models have equal names."""
    revision: str
    per_device: Footprint
    device_count: int = 1
    """Tensor ranks times pipeline stages."""
    pipeline_parallel: int = 1
    """Stages that follow one another, each with its share of the layers; `per_device` is the neediest one's."""
    division_reason: str = field(default="", compare=False)
    """Why it is cut into stages, where nobody asked for them."""
    kinds: frozenset[DeviceKind] = frozenset()
    """Kinds of device it was estimated for; empty: any."""
    within: frozenset[DeviceId] = frozenset()
    """The only devices where an operator wants it; empty: any."""
    max_model_len: int | None = None
    """The longest request the KV cache was sized for; None: what the model says."""
    max_num_seqs: int = 32
    arguments: str = ""
    """What is set for the engine that changes its overhead, as measurements are kept under it."""
    basis: Basis | None = field(default=None, compare=False, repr=False)
    """None: nothing was calculated, only guessed by size."""
    remote_code: bool = False
    """The model's configuration wants code that comes with it."""
    keep_alive_s: float = 300.0
    """Idle for so long, it steps down. Zero: at once. Infinite: never for idleness alone."""
    kv_most_bytes: int = 0
    """The largest KV cache per device that could ever be of use; not above what is booked: it is not enlarged."""
    kv_least_bytes: int = 0
    """The smallest KV cache per device that it starts with; 0: only the one that is booked."""
    max_replicas: int = 1
    """So many may run at once, when one alone cannot keep up."""
    adapters: AdapterRoom | None = None
    """None: the engine serves the model alone, without adapters on it."""
    mould: str = ""
    """What shapes its engine: a running one of an equal mould can read this model's weights. Empty: none can."""

    @property
    def key(self) -> tuple[str, str]:
        """Demands with equal keys are served by the same replica: of one model and content, with one room."""
        return self.model, self.revision if self.adapters is None else f"{self.revision} with {self.adapters}"


class Priority(IntEnum):
    """Classes of requests: all of a higher class goes before any of a lower one, within the bound on waiting."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """On whose account a request waits, and how urgently."""

    key: str = ""
    """The API key's id; empty where none is needed. Keys share fairly."""
    share: float = 1.0
    """How much of a fair share the key has beside others."""
    priority: Priority = Priority.NORMAL
    work_tokens: int = 1
    """What it will cost, as far as its body tells: tokens of the prompt and of the longest answer."""
    prefix: tuple[int, ...] = ()
    """Hashes of ever longer beginnings of the prompt, shortest first: equal ones may share a KV cache."""


class RefusalCode(StrEnum):
    UNKNOWN_MODEL = "model_not_found"
    CANNOT_FIT = "model_cannot_fit"
    ENGINE_FAILED = "engine_failed"
    DRAINING = "draining"
    QUEUE_FULL = "queue_full"
    DEADLINE = "queue_timeout"
    OVERLOADED = "overloaded"


# ---- events ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestArrived:
    at: float
    ticket: Ticket
    model: str
    demand: Demand | None
    """None: this node's store does not have the model."""
    deadline_at: float | None = None
    """When an unanswered request is refused."""
    forwarded: bool = False
    """It came from a peer, so it is never forwarded again."""
    terms: Terms = Terms()


@dataclass(frozen=True, slots=True)
class RequestReleased:
    """The client is done, gave up, or lost its replica. Harmless when repeated."""

    at: float
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class ReplicaBecameReady:
    at: float
    replica: ReplicaId
    measured: Footprint
    sleep_levels: frozenset[int] = frozenset()
    """How its engine can sleep on these devices."""
    swaps: bool = False
    """Its engine can become another model's of the same mould."""
    phases: tuple[tuple[str, float], ...] = ()
    """Seconds of each phase of its start, in order."""


@dataclass(frozen=True, slots=True)
class ReplicaProgressed:
    """A phase of a replica's start has ended."""

    at: float
    replica: ReplicaId
    phase: str


@dataclass(frozen=True, slots=True)
class ReplicaSlept:
    """A replica gave its device memory back, as far as it could."""

    at: float
    replica: ReplicaId
    level: int
    """1: weights are in host memory. 2: they are gone, and are read again from the store."""
    residue: Footprint
    """What it still holds on each of its devices, as measured."""
    host_bytes: int
    """What it holds in host memory besides what it held awake."""


@dataclass(frozen=True, slots=True)
class ReplicaWoke:
    at: float
    replica: ReplicaId
    measured: Footprint


@dataclass(frozen=True, slots=True)
class ReplicaPressed:
    """What a ready replica's engine says of itself."""

    at: float
    replica: ReplicaId
    running: int
    """Sequences it works on."""
    waiting: int
    """Sequences that its own queue holds."""
    kv_used_ratio: float
    """Of its KV cache."""
    preemptions: int
    """Sequences it had to put back for want of KV cache, since it started."""


@dataclass(frozen=True, slots=True)
class ReplicaDied:
    """A ready replica's engine ended by itself. It serves nobody any more; `ReplicaExited` follows."""

    at: float
    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class ReplicaExited:
    """All its processes are gone and its memory is free."""

    at: float
    replica: ReplicaId
    cause: str | None
    """None: it was told to stop. Otherwise what it died of, in its own words."""


@dataclass(frozen=True, slots=True)
class DevicesFound:
    at: float
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class DevicesRead:
    at: float
    readings: tuple[DeviceReading, ...]
    ours: tuple[tuple[ReplicaId, tuple[int, ...]], ...]
    """The processes of each replica, to tell ours from foreign."""
    host: HostReading | None = None
    memory: tuple[tuple[ReplicaId, ProcessMemory], ...] = ()
    """What the processes of each replica hold; told now and then."""
    daemon: ProcessMemory | None = None
    """Likewise of heliosd itself."""
    spaces: tuple[Space, ...] = ()


@dataclass(frozen=True, slots=True)
class PeersChanged:
    """What the live peers say they hold, and how busy they are."""

    at: float
    holds: tuple[tuple[PeerName, tuple[str, ...]], ...]
    news: tuple[PeerNews, ...] = ()
    """Of those that tell of their load."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An operator wants so many replicas of a model to be there always, asked for or not."""

    demand: Demand
    replicas: int


@dataclass(frozen=True, slots=True)
class ModelsWanted:
    """All pins and least numbers of replicas, as they are now."""

    at: float
    wanted: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class SleepAsked:
    """An operator wants this replica to give its memory back once its leases are over."""

    at: float
    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class StopAsked:
    """An operator wants this replica gone; it drains first."""

    at: float
    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """The node is going down: no new requests, finish the old."""

    at: float


@dataclass(frozen=True, slots=True)
class DrainEnded:
    """An operator wants the node to take requests again."""

    at: float


@dataclass(frozen=True, slots=True)
class DeviceDrainAsked:
    """An operator takes a device out: its replicas finish and stop, and nothing is started there. Or he ends that."""

    at: float
    device: DeviceId
    out: bool


@dataclass(frozen=True, slots=True)
class StartAsked:
    """An operator wants one more replica. Where idle ones must make room first, he asks again when they have."""

    at: float
    demand: Demand
    wish: Ticket
    """What became of it is `Scheduler.wished` of this ticket."""
    sleeper: ReplicaId | None = None
    """Who may be woken for it; None: it has to be another one."""


@dataclass(frozen=True, slots=True)
class LimitAsked:
    """An operator wants a replica to work on at most so many requests at once."""

    at: float
    replica: ReplicaId
    most: int


@dataclass(frozen=True, slots=True)
class LimitsChanged:
    at: float
    limits: "Limits"
    keep_alives: tuple[tuple[ReplicaId, float], ...] = ()
    """What is now configured for replicas that run, in seconds."""


@dataclass(frozen=True, slots=True)
class ModelsChanged:
    """The store has other models than before: what failed may not fail again."""

    at: float


@dataclass(frozen=True, slots=True)
class ModelsKnown:
    """The models of the store, and what each takes of a device at least, in bytes: its weights."""

    at: float
    sizes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class TierHeld:
    """What models that are kept ready to load hold of the machine's RAM, so that the kernel cannot take it back."""

    at: float
    host_bytes: int


@dataclass(frozen=True, slots=True)
class ModelsPlaced:
    """In which tiers the models of the store lie now, and how fast each of those is read."""

    at: float
    placed: tuple[Placed, ...]
    speeds: tuple[TierSpeed, ...]


@dataclass(frozen=True, slots=True)
class ShellsHeld:
    """What processes made ahead of need hold of the machine's RAM, besides what they share."""

    at: float
    host_bytes: int


@dataclass(frozen=True, slots=True)
class UsageSeeded:
    """What another life of the node knew of its models' use, and what time of day it is."""

    at: float
    epoch_offset_s: float
    """Seconds since the epoch minus the node's clock."""
    models: tuple[Remembered, ...] = ()
    starts: tuple[tuple[str, SeenStart], ...] = ()
    """The last ones of each model, oldest first."""
    swaps: tuple[tuple[str, SeenStart], ...] = ()
    """Likewise of those that began in another's engine."""


@dataclass(frozen=True, slots=True)
class DemandsKnown:
    """What models of the store would take that may be asked for soon, though nobody has asked yet."""

    at: float
    demands: tuple[Demand, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """The time the scheduler asked to be woken at has come."""

    at: float


Event = (
    RequestArrived
    | RequestReleased
    | ReplicaBecameReady
    | ReplicaProgressed
    | ReplicaSlept
    | ReplicaWoke
    | ReplicaPressed
    | ReplicaDied
    | ReplicaExited
    | DevicesFound
    | DevicesRead
    | PeersChanged
    | ModelsWanted
    | SleepAsked
    | StopAsked
    | DrainAsked
    | DrainEnded
    | DeviceDrainAsked
    | StartAsked
    | LimitAsked
    | LimitsChanged
    | ModelsChanged
    | ModelsKnown
    | TierHeld
    | ModelsPlaced
    | ShellsHeld
    | UsageSeeded
    | DemandsKnown
    | Tick
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator lets the scheduler do."""

    patience_s: float = 5.0
    """How long a ready replica may serve others while it stands in the way of an older request."""
    queue_length: int = 1000
    safety_ratio: float = 0.02
    """Share of each device that is promised to nobody."""
    retry_after_failure_s: float = 2.0
    """Wait before a model whose engine failed is started again; doubles with each failure in a row."""
    overtaking_s: float = 60.0
    """A request that has waited for so long is served before all younger ones, whatever their class and key."""
    residence_s: float = 2.0
    """A replica that just became ready is not sent away before it was ready for so long; at most the patience."""
    sleep: bool = True
    """Whether replicas whose engines can sleep do so before they are stopped."""
    hot_swap: bool = True
    """Whether an idle engine may become another model of its mould."""
    asleep_s: float = 3600.0
    """How long a sleeping replica is kept when nobody asks for it."""
    host_bytes: int = 0
    """Host memory that sleeping replicas may hold together."""
    prefetch_loads: int = 0
    """How many models may be starting at a time that nobody has asked for yet; 0: nothing starts ahead."""
    prefetch_horizon_s: float = 60.0
    """How far ahead the forecast looks for them."""
    leaks: LeakPolicy = field(default_factory=LeakPolicy)


# ---- commands --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grant:
    ticket: Ticket
    replica: ReplicaId
    reason: str


@dataclass(frozen=True, slots=True)
class Forward:
    ticket: Ticket
    peer: PeerName
    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    ticket: Ticket
    code: RefusalCode
    reason: str
    """Shows the arithmetic."""
    retry_after_s: float | None = None
    cause: str | None = None
    """The engine's own words, when an engine is to blame."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The request stays queued. Told once, and again when the reason changes."""

    ticket: Ticket
    reason: str
    position: int = field(default=0, compare=False)
    """How many requests will be served before it, as it looks now."""
    eta_s: float | None = field(default=None, compare=False)
    """Seconds until it is served, as it looks now; None: nobody can tell."""


@dataclass(frozen=True, slots=True)
class StartReplica:
    replica: ReplicaId
    demand: Demand
    devices: tuple[DeviceId, ...]
    reason: str
    takes_over: ReplicaId | None = None
    """Begins in the engine of this one, whose life ends with it; None: in one of its own."""


@dataclass(frozen=True, slots=True)
class DrainReplica:
    """Only told, nothing to carry out: it gives no new leases from here on."""

    replica: ReplicaId
    reason: str


@dataclass(frozen=True, slots=True)
class StopReplica:
    replica: ReplicaId
    reason: str


@dataclass(frozen=True, slots=True)
class SleepReplica:
    """It has no lease. It answers with `ReplicaSlept`, or ends."""

    replica: ReplicaId
    level: int
    reason: str


@dataclass(frozen=True, slots=True)
class WakeReplica:
    """It answers with `ReplicaWoke`, or ends."""

    replica: ReplicaId
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Worth a line in the journal: drift, a fault, a failure."""

    subject: str
    reason: str
    warning: bool = field(default=False)
    kind: str = ""
    """Of its line in the journal; empty: `warning` or `note`."""
    replica: ReplicaId | None = None
    detail: tuple[tuple[str, float], ...] = ()
    """Figures that belong to it, by name."""


Command = (
    Grant | Forward | Refuse | Hold | StartReplica | SleepReplica | WakeReplica | DrainReplica | StopReplica | Note
)
