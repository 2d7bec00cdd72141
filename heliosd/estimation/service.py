"""Estimates that were made are kept: by content, for a while, as many as there is room for.

    estimates = EstimateCache[Account](capacity=4096, ttl_s=600)
    key = (content_digest(config), launch)  # once for each configuration, not for each question
    estimates.get(key, lambda: account(read_model(config), launch), now_s)

Equal content has an equal answer, so there is nothing to forget before its time. Belongs to one thread; time is told,
not asked for.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from heliosd.errors import BadRequest

V = TypeVar("V")


def content_digest(content: Mapping[str, Any] | bytes) -> str:
    """What tells contents apart: of a configuration whatever the order of its fields, of bytes as they are.

    Raises BadRequest for what is nested too deeply to be a configuration.
    """
    if not isinstance(content, bytes):
        try:
            content = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str).encode()
        except (RecursionError, TypeError, ValueError) as error:
            raise BadRequest(f"cannot read the configuration: {str(error)[:80]}", code="bad_config") from error
    return blake2b(content, digest_size=16).hexdigest()


@dataclass(slots=True)
class CacheCounts:
    """What became of the questions so far."""

    hits: int = 0
    misses: int = 0
    """Expired ones included."""
    evicted: int = 0
    """Thrown out for want of room."""


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    until_s: float


class EstimateCache(Generic[V]):
    """The most recently used `capacity` answers, each for `ttl_s` seconds."""

    def __init__(self, capacity: int = 4096, ttl_s: float = 600.0) -> None:
        if capacity < 1 or ttl_s <= 0:
            raise ValueError(f"cannot keep {capacity} estimates for {ttl_s} s")
        self._capacity, self._ttl_s = capacity, ttl_s
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self.counts = CacheCounts()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, make: Callable[[], V], now_s: float) -> V:
        """The answer kept for `key`, else the one that `make` gives. What `make` raises is not kept."""
        entry = self._entries.get(key)
        if entry is not None and now_s < entry.until_s:
            self._entries.move_to_end(key)
            self.counts.hits += 1
            return entry.value
        self.counts.misses += 1
        value = make()
        self._entries[key] = _Entry(value, now_s + self._ttl_s)
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
            self.counts.evicted += 1
        return value
