"""What a peer tells of its load, seconds old at best."""

from dataclasses import dataclass

from heliosd.core.names import PeerName


@dataclass(frozen=True, slots=True)
class PeerNews:
    peer: PeerName
    ready: tuple[str, ...]
    """Models of which it has a replica that is ready; the latest used ones, when there are many."""
    free_bytes: int
    """What may still be promised of its freest device."""
    queue_length: int
    """Requests that wait there for a replica."""
