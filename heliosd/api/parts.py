"""What the API needs from the rest of the daemon, as it is handed in by the wiring. Builds nothing itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from heliosd.api.estimator import Estimator
from heliosd.api.stall import STALLED_S
from heliosd.api.totals import Totals
from heliosd.cluster.member import Member
from heliosd.core.breaker import RetryBudget
from heliosd.core.claim import Claim
from heliosd.core.manifest import Manifest
from heliosd.core.messages import Hold
from heliosd.core.names import Digest, ModelRef, PeerName, ReplicaId, Ticket
from heliosd.core.profile import ModelProfile
from heliosd.core.retention import Move, Plan, Tier
from heliosd.core.snapshot import ShellsStatus, Snapshot
from heliosd.core.storage_speed import Speed
from heliosd.engines.engine import Engine, Reply, Request
from heliosd.engines.warmups import Warmups
from heliosd.errors import NotFound, SourceFailed
from heliosd.estimation.accuracy import Accuracy
from heliosd.estimation.known import Known
from heliosd.explain import Facts
from heliosd.lease import Judgement, Lease, StartSoFar
from heliosd.logs import RecentLog, recent_log
from heliosd.node.draining import Draining
from heliosd.node.operating import Operating
from heliosd.state.advice import PutOff
from heliosd.state.hours import Hours
from heliosd.state.kept_answers import KeptAnswers
from heliosd.state.keys import Keys
from heliosd.store.garbage import Plan as GarbagePlan
from heliosd.store.serving import Given
from heliosd.store.sharing import Shared
from heliosd.store.store import Compared
from heliosd.store.stored import Adapter, Addition, PastRevision, StoredModel
from heliosd.store.usage import Usage
from heliosd.telemetry.alert_states import Active
from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.surroundings import Surroundings
from heliosd.tiering import TierStatus
from heliosd.wire import CheckView

if TYPE_CHECKING:
    from heliosd.metering import Metering
    from heliosd.telemetry.traces import Traces


class Kind(Protocol):
    """How a kind of engine does; `version` and `detail` None: not known, nothing to tell."""

    @property
    def state(self) -> str: ...
    @property
    def version(self) -> str | None: ...
    @property
    def detail(self) -> str | None: ...


class TheWanted(Protocol):
    """What the API asks of `heliosd.wanted.WantedModels`."""

    async def pinned(self) -> dict[str, int]: ...

    async def pin(self, ref: ModelRef, replicas: int) -> None: ...

    async def unpin(self, ref: ModelRef) -> None: ...


class TheNode(Protocol):
    """What the API asks of `heliosd.node.Node`."""

    @property
    def accepting(self) -> bool: ...

    def new_ticket(self) -> Ticket: ...

    def lease(
        self,
        ticket: Ticket,
        ref: ModelRef,
        *,
        claim: Claim | None = None,
        deadline_s: float | None = None,
        forwarded: bool = False,
        told: Callable[[Hold], None] | None = None,
    ) -> AbstractAsyncContextManager[Lease]: ...

    async def load(self, ref: ModelRef) -> ReplicaId: ...

    async def stop(self, subject: str) -> tuple[ReplicaId, ...]: ...

    async def sleep(self, subject: str) -> tuple[ReplicaId, ...]: ...

    @property
    def wanted(self) -> TheWanted: ...

    @property
    def operator(self) -> Operating: ...

    @property
    def draining(self) -> Draining: ...

    async def judge(
        self,
        ref: ModelRef,
        *,
        kv_cache_bytes: int | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
    ) -> Judgement: ...

    async def judge_unstored(self, prospect: StoredModel, known: Known) -> Judgement: ...

    def facts(self, subject: str) -> Facts: ...

    def snapshot(self) -> Snapshot: ...

    def engine(self, replica: ReplicaId) -> Engine | None: ...

    def start_so_far(self, replica: ReplicaId) -> StartSoFar | None: ...

    def answered(self, replica: ReplicaId, asked_at: float, first_byte_at: float) -> None: ...

    def log_file(self, replica: ReplicaId) -> Path: ...

    async def changed(self, since: int) -> int: ...


class Entry(Protocol):
    """A line of the journal."""

    @property
    def id(self) -> int: ...
    @property
    def at(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def ticket(self) -> str | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def replica(self) -> str | None: ...
    @property
    def detail(self) -> Mapping[str, Any]: ...


class TheJournal(Protocol):
    """What the API asks of `heliosd.state.journal.Journal`."""

    async def flushed(self) -> None: ...

    @property
    def written(self) -> int: ...
    @property
    def lost(self) -> int: ...

    async def read(
        self,
        *,
        after: int = 0,
        limit: int = 500,
        subject: str | None = None,
        kinds: Sequence[str] = (),
        since: float = 0.0,
    ) -> Sequence[Entry]: ...

    def follow(self) -> AsyncIterator[Entry]: ...

    def note(
        self,
        kind: str,
        message: str,
        *,
        ticket: str | None = None,
        model: str | None = None,
        replica: str | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None: ...


class TheRecording(Protocol):
    """What the API asks of `heliosd.state.recording.Recording`."""

    @property
    def events(self) -> int: ...
    @property
    def lost(self) -> int: ...

    def stream(self) -> AsyncIterator[bytes]: ...


class Stored(Protocol):
    """A model as the store lists it."""

    @property
    def ref(self) -> ModelRef: ...
    @property
    def revision(self) -> Digest: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def source(self) -> str: ...
    @property
    def created_at(self) -> float: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...
    @property
    def profile(self) -> ModelProfile: ...
    @property
    def adapter(self) -> Adapter | None: ...
    @property
    def of(self) -> ModelRef | None: ...


class Progress(Protocol):
    """How far an addition is; told on the event loop."""

    @property
    def phase(self) -> str: ...
    @property
    def item(self) -> str | None: ...
    @property
    def done_bytes(self) -> int: ...
    @property
    def total_bytes(self) -> int | None: ...
    @property
    def rate_bytes_per_s(self) -> float | None: ...
    @property
    def eta_s(self) -> float | None: ...


class TheServed(Protocol):
    """A file that is being sent to another node."""

    size_bytes: int

    async def read(self, begin: int, size_bytes: int) -> bytes: ...


class TheServing(Protocol):
    """What the API asks of `heliosd.store.serving.Serving`."""

    async def model(self, ref: ModelRef) -> Given: ...
    def file(self, digest: Digest, *, to_peer: bool) -> AbstractAsyncContextManager[TheServed]: ...


class TheStore(Protocol):
    """What the API asks of `heliosd.store.store.Store`."""

    @property
    def fetched(self) -> Mapping[str, int]: ...
    @property
    def serving(self) -> "TheServing": ...

    async def models(self) -> Sequence[Stored]: ...

    async def find(self, ref: ModelRef) -> Stored | None: ...

    async def by_name(self, name: str) -> Stored | None: ...

    async def known(self, model: Stored) -> Known: ...

    async def add(self, wanted: Addition, progress: Callable[[Progress], None]) -> Stored: ...

    async def remove(self, ref: ModelRef) -> int: ...

    async def set_alias(self, alias: str, ref: ModelRef) -> ModelRef: ...

    async def remove_alias(self, alias: str) -> ModelRef: ...

    async def sizes(self) -> tuple[int, int]: ...

    async def usage(self) -> Usage: ...

    def keep(self, ref: ModelRef) -> int: ...

    async def past(self, ref: ModelRef) -> Sequence[PastRevision]: ...

    async def move(self, ref: ModelRef, beginning: str | None = None) -> tuple[PastRevision, PastRevision]: ...

    async def compare(self, model: ModelRef, other: ModelRef | None, tell: Callable[[Progress], None]) -> Compared: ...

    async def garbage(self, users: Mapping[str, Sequence[str]], interrupted_s: float) -> GarbagePlan: ...

    async def collect(self, plan: GarbagePlan) -> int: ...


class ThePeers(Protocol):
    """What the API asks of `heliosd.cluster.peers.Peers`."""

    @property
    def holds(self) -> Mapping[PeerName, frozenset[str]]: ...
    @property
    def heard_at(self) -> float | None: ...

    def members(self) -> tuple[Member, ...]: ...

    async def forward(self, peer: PeerName, request: Request, reply: Reply) -> None: ...

    def verify(self, token: str, method: str, target: str) -> PeerName | None: ...


class TheAlerts(Protocol):
    """What the API asks of `heliosd.telemetry.alert_watch.AlertWatch`."""

    @property
    def epoch_offset_s(self) -> float: ...
    @property
    def active(self) -> Sequence[Active]: ...

    def firing(self) -> dict[str, int]: ...


class TheTiers(Protocol):
    """What the API asks of `heliosd.tiering.Tiering`."""

    @property
    def moving(self) -> Move | None: ...

    async def plan(self) -> Plan: ...

    async def status(self) -> Sequence[TierStatus]: ...

    async def wishes(self) -> dict[str, Tier]: ...

    async def wish(self, ref: ModelRef, tier: Tier | None) -> str: ...

    def tier_of(self, manifest: Manifest) -> str: ...


HubHeaders = Callable[[str, str | None], Awaitable[tuple[Known, str]]]
"""Reads a repository's configuration and headers, of a revision or the newest, and tells its commit. Raises
HeliosError."""


class Glance(Protocol):
    """What a repository's configuration and headers tell of the model in it."""

    @property
    def known(self) -> Known: ...
    @property
    def profile(self) -> ModelProfile: ...
    @property
    def commit(self) -> str: ...


async def _no_hub(repository: str, revision: str | None) -> NoReturn:
    raise SourceFailed(f"cannot look at {repository}: this node asks no hub", code="hub_offline")


class Reloading(Protocol):
    """What the API asks of the daemon about its configuration."""

    async def difference(self) -> tuple[Sequence[str], Sequence[str]]:
        """Keys that differ from what was read: those that would take effect, and those that wait for a restart. Raises
        HeliosError when it cannot be read."""
        ...

    async def reload(self) -> tuple[Sequence[str], Sequence[str]]:
        """The same, done."""
        ...

    @property
    def shown(self) -> str:
        """The whole configuration as TOML, without secrets."""
        ...

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets themselves, so that they can be kept out of what is shown."""
        ...


Share = Callable[[], Awaitable[Shared]]
"""Looks at the whole store for what models have in common, keeps that once, and notes what came of it."""


async def _nothing_shared() -> Shared:
    return Shared()


async def _no_starts() -> Mapping[str, Accuracy]:
    return {}


@dataclass(frozen=True, slots=True)
class History:
    """What advice and capacity planning rest on."""

    hours: Hours
    put_off: PutOff
    asked_at: Callable[[], Awaitable[Mapping[str, float]]]
    """When each model was last asked for, in seconds since the epoch."""
    pinned_at: Callable[[], Awaitable[Mapping[str, float]]]
    """Since when each model is pinned, likewise."""
    prefetching: Callable[[], bool]
    """Whether models are started ahead of need."""


Check = Callable[[], Awaitable[Sequence[CheckView]]]
"""One question of `heliosctl doctor`; may raise HeliosError, which is then the finding."""


class MeasuredStorage(Protocol):
    """What the API shows of `heliosd.storage_check.StorageReport`."""

    @property
    def file(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def speeds(self) -> tuple[Speed, ...]: ...

    @property
    def load_format(self) -> str: ...


async def _no_storage() -> MeasuredStorage:
    raise NotFound("cannot measure the storage: this node loads no weights from it", code="no_large_file")


@dataclass(frozen=True, slots=True)
class Identity:
    """What the daemon says of itself."""

    name: str
    version: str
    started_at: float
    """Seconds since the epoch."""
    state_dir: Path
    config_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the API is built from."""

    identity: Identity
    node: TheNode
    journal: TheJournal
    store: TheStore
    keys: Keys
    metrics: Metrics
    kept: KeptAnswers
    """Answers that may be asked for again."""
    peers: ThePeers
    engine_kinds: Callable[[], Mapping[str, Kind]]
    """How each kind of engine does, by its name."""
    alerts: TheAlerts
    totals: Totals = field(default_factory=Totals)
    """Of the store, for the metrics."""
    survey: Callable[[], Surroundings] = Surroundings
    """Looks at the disks and the database; called in a thread."""
    tiers: TheTiers | None = None
    """None: models stay where they are."""
    recording: TheRecording | None = None
    """None: switched off."""
    warmups: Warmups | None = None
    """What engines compiled; None: nothing is kept."""
    traces: "Traces | None" = None
    """How requests are traced; None: they are not."""
    metering: "Metering | None" = None
    """What keys use; None: nobody's use is metered."""
    history: History | None = None
    """None: nobody counts what each hour wants."""
    checks: tuple[Check, ...] = ()
    shells: Callable[[], Mapping[str, ShellsStatus]] = dict
    """The processes made ahead, by kind of engine; kinds that have none are left out."""
    measure_storage: Callable[[], Awaitable[MeasuredStorage]] = _no_storage
    """How fast weights come from the store. Raises HeliosError."""
    warnings: Callable[[], Sequence[str]] = tuple
    """What the operator should know now, one sentence each."""
    reloading: Reloading | None = None
    """How the configuration is read again; None: it cannot be."""
    settings: Callable[[ModelRef], Mapping[str, Any]] = lambda ref: {}
    """What the operator configured for a model."""
    log: RecentLog = field(default_factory=recent_log)
    """The daemon's own log."""
    estimator: Estimator = field(default_factory=Estimator)
    hub_headers: HubHeaders = _no_hub
    share: Share = _nothing_shared
    hub_glance: Callable[[str, str | None], Awaitable[Glance]] = _no_hub
    """The same, with the profile."""
    accuracy: Callable[[], Awaitable[Mapping[str, Accuracy]]] = _no_starts
    """By term, how near estimates came to what was measured here."""
    max_body_bytes: int = 64 * 1024**2
    admin_group: str = "helios"
    """Members may do everything over the Unix socket."""
    hosts: frozenset[str] = frozenset()
    """Names this node is called by, besides those of loopback."""
    stalled_s: float = STALLED_S
    """A client that takes nothing of its answer for so long is cut off."""
    retries: RetryBudget = field(default_factory=RetryBudget)
    sending: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(64))
    """So many files are sent to other nodes at once."""
    tell_after_s: Callable[[], float] = lambda: 1.0
    """A client that waits for a stream for so long is told what it waits for."""
