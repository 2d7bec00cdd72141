"""What the node gives to whoever asks: a lease, a judgement, or the error that says why not."""

from dataclasses import dataclass, field

from heliosd.core.gist import gist
from heliosd.core.messages import Footprint, RefusalCode, Refuse, Terms
from heliosd.core.names import PeerName, ReplicaId, Ticket
from heliosd.core.timeline import Timeline
from heliosd.engines.engine import Engine
from heliosd.errors import CannotFit, EngineFailed, HeliosError, NotFound, Unavailable
from heliosd.estimation.account import DeviceAccount
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model


@dataclass(frozen=True, slots=True)
class LocalLease:
    """The bounded right to use a ready replica of this node."""

    ticket: Ticket
    model: str
    replica: ReplicaId
    engine: Engine


@dataclass(frozen=True, slots=True)
class PeerLease:
    """The advice to pass the request to a peer that holds the model."""

    ticket: Ticket
    model: str
    peer: PeerName
    terms: Terms = field(default_factory=Terms)
    """On which it waits there."""
    left_s: float | None = None
    """How long it may wait there; None: as long as the peer lets it."""


Lease = LocalLease | PeerLease


@dataclass(frozen=True, slots=True)
class StartSoFar:
    """How far the start of a replica is, or how it went."""

    timeline: Timeline
    starting: bool
    age_s: float
    """Since its timeline began."""
    expected: tuple[tuple[str, float], ...] = ()
    """Seconds of each phase, as earlier starts tell; empty when it is over, or nothing is known."""
    left_s: float | None = None
    """Until it is ready, as far as earlier starts tell."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a replica of a model would take here and whether it is to be had."""

    model: str
    per_device: Footprint
    device_count: int
    max_model_len: int
    kv_tokens: int
    kv_bytes_per_token: int
    verdict: str
    """`ready`, `fits`, `must_wait` or `never_fits`."""
    reason: str
    notes: tuple[str, ...]
    accounts: tuple[DeviceAccount, ...] = ()
    """Of a device of each pipeline stage; empty when nothing is known of the model but its size."""
    launch: Launch | None = None
    read: Model | None = None
    """The model as its configuration describes it."""
    pipeline_parallel: int = 1
    """Stages among which the devices are dealt out; `per_device` is the neediest one's."""
    max_num_seqs: int | None = None
    """Requests that a replica works on at once; None: nobody knows."""


def refusal_error(refuse: Refuse) -> HeliosError:
    """The error a refused client gets; its code is the refusal's."""
    match refuse.code:
        case RefusalCode.UNKNOWN_MODEL:
            return NotFound(refuse.reason, code=refuse.code)
        case RefusalCode.CANNOT_FIT:
            return CannotFit(refuse.reason, code=refuse.code)
        case RefusalCode.ENGINE_FAILED:
            message = f"{refuse.reason}: {gist(refuse.cause)}" if refuse.cause else refuse.reason
            return EngineFailed(message, code=refuse.code, cause=refuse.cause, retry_after_s=refuse.retry_after_s)
        case RefusalCode.DEADLINE:  # it waited for as long as it was to: when to come back, nobody can say
            return Unavailable(refuse.reason, code=refuse.code, retry_after_s=None)
        case RefusalCode.DRAINING | RefusalCode.QUEUE_FULL | RefusalCode.OVERLOADED:
            return Unavailable(refuse.reason, code=refuse.code, retry_after_s=refuse.retry_after_s or 1.0)
