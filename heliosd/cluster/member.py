"""A line in the gossip table: what a node tells the others about itself. Knows no transport."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from heliosd.core.names import PeerName
from heliosd.errors import ConfigError

MAX_META_BYTES = 200
"""Gossip repeats it to everybody at each change: 1000 nodes of this size agree within seconds."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,55}")
_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+")


class MemberState(StrEnum):
    SELF = "self"
    ALIVE = "alive"
    SUSPECT = "suspect"
    """It missed its probes; it may come back, or be declared dead within seconds."""
    DEAD = "dead"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Meta:
    """What this node gossips about itself. Facts only; load changes too often to be gossiped."""

    api_url: str | None
    """Where its peers reach its HTTP API; None: it cannot be asked for anything."""
    version: str
    catalogue: str = ""
    """A short hash of the names of its models: when it changes, peers fetch the list."""
    draining: bool = False

    def tags(self) -> dict[str, str]:
        """As gossiped. Raises ConfigError for what peers would not accept."""
        if self.api_url is not None and not _URL.fullmatch(self.api_url):
            raise ConfigError(
                f"cannot tell peers to reach this node at {self.api_url}: write http://host:port, without a path"
            )
        tags = {"u": self.api_url or "", "v": self.version, "c": self.catalogue}
        tags |= {"d": "1"} if self.draining else {}
        size_bytes = sum(len(key.encode()) + len(value.encode()) + 2 for key, value in tags.items())
        if size_bytes > MAX_META_BYTES:
            raise ConfigError(
                f"cannot gossip {size_bytes} bytes about this node: at most {MAX_META_BYTES} may be used. "
                f"Shorten its API address, {self.api_url}"
            )
        return tags


def meta_of(tags: Mapping[str, str]) -> Meta:
    """Read a peer's tags. What cannot be trusted to be an address is left out."""
    url = tags.get("u", "")
    return Meta(
        api_url=url if _URL.fullmatch(url) else None,
        version=tags.get("v", "")[:32],
        catalogue=tags.get("c", "")[:64],
        draining=tags.get("d") == "1",
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
    return Member(name, MemberState.SELF, address, meta.api_url, meta.version, epoch, meta.catalogue, meta.draining)


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
