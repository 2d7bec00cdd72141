"""The node: carries events to the scheduler and its commands to the world, and is the only caller of either."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from heliosd.core.messages import Footprint
from heliosd.core.names import ModelRef, PeerName, ReplicaId, Ticket
from heliosd.core.snapshot import Snapshot
from heliosd.engines.engine import Engine


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


Lease = LocalLease | PeerLease


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
