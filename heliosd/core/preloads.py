"""What became of models that were started before anyone asked: hits, and bytes held in vain."""

from dataclasses import dataclass, field

from heliosd.core.names import ReplicaId
from heliosd.core.snapshot import PreloadCount


@dataclass(frozen=True, slots=True)
class Preloaded:
    """A replica that was started ahead, and that nobody has asked for yet."""

    model: str
    since: float
    n_bytes: int
    """On all its devices."""


@dataclass
class Preloads:
    """Written by the scheduler alone."""

    unasked: dict[ReplicaId, Preloaded] = field(default_factory=dict)
    hits: int = 0
    misses: int = 0
    wasted_byte_s: float = 0.0
    """Bytes times seconds of those that went unasked."""
    barred: set[str] = field(default_factory=set)
    """Models not to start ahead until they are asked for again: it was in vain, or an operator stopped them."""

    @property
    def hit_rate(self) -> float | None:
        """The share that was asked for before it went; None: none has come to an end."""
        ended = self.hits + self.misses
        return self.hits / ended if ended else None

    def started(self, replica: ReplicaId, model: str, n_bytes: int, at: float) -> None:
        self.unasked[replica] = Preloaded(model, at, n_bytes)

    def asked(self, model: str) -> None:
        self.barred.discard(model)
        for replica in [replica for replica, each in self.unasked.items() if each.model == model]:
            del self.unasked[replica]
            self.hits += 1

    def gone(self, replica: ReplicaId, at: float) -> None:
        """The replica has ended. Harmless for one that was not started ahead, or was asked for."""
        ended = self.unasked.pop(replica, None)
        if ended is not None:
            self.misses += 1
            self.wasted_byte_s += ended.n_bytes * max(0.0, at - ended.since)
            self.barred.add(ended.model)

    def count(self) -> PreloadCount:
        return PreloadCount(len(self.unasked), self.hits, self.misses, self.wasted_byte_s)

    def bar(self, model: str) -> None:
        self.barred.add(model)
