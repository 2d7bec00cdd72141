"""A line in the gossip table: what a node tells the others about itself. Knows no transport."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from heliosd.core.names import PeerName
from heliosd.core.units import GiB
from heliosd.errors import ConfigError

MAX_META_BYTES = 200
"""Gossip repeats it to everybody at each change: 1000 nodes of this size agree within seconds."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,55}")
_NUMBER = re.compile(r"[0-9]{1,7}")
_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+")


class MemberState(StrEnum):
    SELF = "self"
    ALIVE = "alive"
    SUSPECT = "suspect"
    """It missed its probes; it may come back, or be declared dead within seconds."""
    DEAD = "dead"
    LEFT = "left"


MOST_READY = 12
"""Models told as ready, the latest used first."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a node is, coarsely, so that it changes seldom."""

    ready: tuple[str, ...] = ()
    """Short names of models that are ready, as `short` makes them."""
    free_bytes: int | None = None
    """What may still be promised of its freest device, whole GiB; None: it does not tell."""
    queue_length: int = 0

    @classmethod
    def of(cls, ready: Iterable[str], free_bytes: int, queue_length: int) -> "Load":
        """Free memory rounded down, the queue up to a power of two: what a peer reads promises nothing too much."""
        names = tuple(short(model) for model in list(ready)[:MOST_READY])
        return cls(names, max(0, free_bytes) // GiB * GiB, 1 << (queue_length - 1).bit_length() if queue_length else 0)

    def tags(self) -> dict[str, str]:
        if self.free_bytes is None:
            return {}
        tags = {"f": str(self.free_bytes // GiB)}
        tags |= {"q": str(self.queue_length)} if self.queue_length else {}
        return tags | ({"r": "".join(self.ready)} if self.ready else {})


def short(model: str) -> str:
    """Four characters for a model's name: one in sixteen million others has the same."""
    return base64.urlsafe_b64encode(hashlib.sha256(model.encode()).digest()[:3]).decode()


def _load_of(tags: Mapping[str, str]) -> Load:
    free, queue, ready = tags.get("f", ""), tags.get("q", "0"), tags.get("r", "")
    if not _NUMBER.fullmatch(free) or not _NUMBER.fullmatch(queue):
        return Load()
    names = tuple(ready[at : at + 4] for at in range(0, min(len(ready), 4 * MOST_READY) - 3, 4))
    return Load(names, int(free) * GiB, int(queue))


@dataclass(frozen=True, slots=True)
class Meta:
    """What this node gossips about itself."""

    api_url: str | None
    """Where its peers reach its HTTP API; None: it cannot be asked for anything."""
    version: str
    catalogue: str = ""
    """A short hash of the names of its models: when it changes, peers fetch the list."""
    draining: bool = False
    load: Load = Load()

    def tags(self) -> dict[str, str]:
        """As gossiped. Ready models are left out as far as there is no room. Raises ConfigError for what peers would
        not accept."""
        if self.api_url is not None and not _URL.fullmatch(self.api_url):
            raise ConfigError(
                f"cannot tell peers to reach this node at {self.api_url}: write http://host:port, without a path"
            )
        tags = {"u": self.api_url or "", "v": self.version, "c": self.catalogue}
        tags |= {"d": "1"} if self.draining else {}
        load = self.load
        while load.ready and _size_bytes(tags | load.tags()) > MAX_META_BYTES:
            load = replace(load, ready=load.ready[:-1])
        tags |= load.tags() if _size_bytes(tags | load.tags()) <= MAX_META_BYTES else {}
        size_bytes = _size_bytes(tags)
        if size_bytes > MAX_META_BYTES:
            raise ConfigError(
                f"cannot gossip {size_bytes} bytes about this node: at most {MAX_META_BYTES} may be used. "
                f"Shorten its API address, {self.api_url}"
            )
        return tags


def _size_bytes(tags: Mapping[str, str]) -> int:
    return sum(len(key.encode()) + len(value.encode()) + 2 for key, value in tags.items())


def meta_of(tags: Mapping[str, str]) -> Meta:
    """Read a peer's tags. What cannot be trusted to be an address is left out."""
    url = tags.get("u", "")
    return Meta(
        api_url=url if _URL.fullmatch(url) else None,
        version=tags.get("v", "")[:32],
        catalogue=tags.get("c", "")[:64],
        draining=tags.get("d") == "1",
        load=_load_of(tags),
    )


@dataclass(frozen=True, slots=True)
class Member:
    """A node as this node sees it now."""

    name: PeerName
    state: MemberState
    address: str
    """Where it gossips, `host:port`."""
    api_url: str | None
    version: str
    epoch: int
    """Tells one run of a node from the next: it grows at each restart."""
    catalogue: str = ""
    draining: bool = False
    load: Load = Load()

    @property
    def present(self) -> bool:
        """A peer that has neither died nor left."""
        return self.state in (MemberState.ALIVE, MemberState.SUSPECT)

    @property
    def routable(self) -> bool:
        """A peer that new requests may be passed to."""
        return self.state is MemberState.ALIVE and not self.draining and self.api_url is not None


def self_of(name: PeerName, address: str, epoch: int, meta: Meta) -> Member:
    """This node's own line."""
    return Member(
        name, MemberState.SELF, address, meta.api_url, meta.version, epoch, meta.catalogue, meta.draining, meta.load
    )


def ready_of(member: Member, models: Iterable[str]) -> tuple[str, ...]:
    """Which of the models that it holds a member says are ready."""
    return tuple(sorted(model for model in models if short(model) in member.load.ready)) if member.load.ready else ()


def reachable_url(api_host: str, api_port: int, gossip_bind: str) -> str | None:
    """Where peers reach the API when the operator does not say: at the address it listens on, else at the gossip's.

    None when that cannot be told, or when the API listens for this machine only and the gossip for others as well:
    peers then see this node and ask nothing of it.
    """
    gossip_host = gossip_bind.rpartition(":")[0].strip("[]")
    host = gossip_host if _is_any(api_host) else api_host
    if _is_any(host) or (_is_loopback(host) and not _is_loopback(gossip_host)):
        return None
    return f"http://[{host}]:{api_port}" if ":" in host else f"http://{host}:{api_port}"


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::", "")


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def parse_name(text: str) -> PeerName:
    """Accept a node's name. Raises ValueError for what would not fit a log line, a label or a header."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"cannot call a node {text!r}: use up to 56 letters, digits, '.', '_' and '-'")
    return PeerName(text)


def catalogue_hash(models: Iterable[str]) -> str:
    """Name a set of models in 16 characters; equal sets have equal names."""
    return hashlib.sha256("\n".join(sorted(set(models))).encode()).hexdigest()[:16]
