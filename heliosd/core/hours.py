"""What each hour wanted: of each model, and in bytes of each device. Values in, rows to be kept out.

A model is wanted while a request for it waits or is worked on. What it needs then is what its replicas take with the
smallest KV cache that serves it, whatever larger one they were given because nobody else could use the room.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import Ticket

WANTED = "wanted"
"""The place of the row that adds up what all models need that are wanted at once, wherever it would lie."""
SLEEPERS = "host sleepers"
"""Host memory that sleeping replicas held."""
HOST_TIER = "host tier"
"""Host memory that models kept ready to load held."""


@dataclass(frozen=True, slots=True)
class ModelHour:
    """One model in one hour, counted from the epoch. Rows of the same hour are added up by `joined`."""

    hour: int
    model: str
    requests: int = 0
    most_at_once: int = 0
    """Requests that waited or were worked on at the same time."""
    longest_tokens: int = 0
    """Of a prompt and the longest answer it allowed, as bodies tell: four characters to a token."""
    most_replicas: int = 0
    need_bytes: int = 0
    """What a replica needs, on all its devices together."""

    def joined(self, other: "ModelHour") -> "ModelHour":
        return replace(
            self,
            requests=self.requests + other.requests,
            most_at_once=max(self.most_at_once, other.most_at_once),
            longest_tokens=max(self.longest_tokens, other.longest_tokens),
            most_replicas=max(self.most_replicas, other.most_replicas),
            need_bytes=max(self.need_bytes, other.need_bytes),
        )


@dataclass(frozen=True, slots=True)
class PlaceHour:
    """One device, or another place, in one hour."""

    hour: int
    place: str
    peak_bytes: int
    """Needed there at once at most; what foreign processes hold included."""
    room_bytes: int
    """What could be had there at most: the capacity less what is held in reserve."""

    def joined(self, other: "PlaceHour") -> "PlaceHour":
        return replace(self, peak_bytes=max(self.peak_bytes, other.peak_bytes), room_bytes=other.room_bytes)


@dataclass(frozen=True, slots=True)
class Rows:
    models: tuple[ModelHour, ...] = ()
    places: tuple[PlaceHour, ...] = ()


def need_bytes(per_device: Footprint, kv_least_bytes: int, used_ratio: float = 0.0) -> int:
    """On one device: of the KV cache only what one longest request takes, or what is in use where that is more."""
    kv = per_device.kv_cache_bytes
    least = max(kv_least_bytes, int(kv * used_ratio)) if kv_least_bytes else kv
    return per_device.total_bytes - kv + min(kv, least)


@dataclass
class Tally:
    """Counts the running hour. One writer; `take` hands over what was counted since."""

    _models: dict[tuple[int, str], ModelHour] = field(default_factory=dict)
    _places: dict[tuple[int, str], PlaceHour] = field(default_factory=dict)
    _live: dict[str, set[Ticket]] = field(default_factory=dict)
    """By model: who waits or is served."""
    _of: dict[Ticket, str] = field(default_factory=dict)
    _demands: dict[str, Demand] = field(default_factory=dict)
    """Of the models that are wanted or kept."""
    _kept: dict[str, int] = field(default_factory=dict)
    """Replicas that are kept ready, by model."""
    _room_bytes: int = 0

    def asked(self, hour: int, ticket: Ticket, demand: Demand, tokens: int) -> None:
        """A request has come."""
        model = demand.model
        live = self._live.setdefault(model, set())
        live.add(ticket)
        self._of[ticket] = model
        self._demands[model] = demand
        self._count(ModelHour(hour, model, 1, len(live), tokens, need_bytes=_whole(demand)))
        self._wanted(hour)

    def left(self, ticket: Ticket) -> None:
        """It is over, however it ended. Harmless for one that is not known."""
        model = self._of.pop(ticket, None)
        if model is None:
            return
        self._live[model].discard(ticket)
        if not self._live[model]:
            del self._live[model]

    def saw(self, hour: int, replicas: Mapping[str, int], kept: Mapping[str, int], places: Iterable[PlaceHour]) -> None:
        """A look at the node: replicas that run and that are kept ready, by model, and what each place needs now."""
        self._kept = dict(kept)
        for model, count in replicas.items():
            if model in self._live or model in kept:
                self._count(ModelHour(hour, model, most_at_once=len(self._live.get(model, ())), most_replicas=count))
        self._room_bytes = 0
        for each in places:
            self._place(each)
            if each.place not in (SLEEPERS, HOST_TIER):
                self._room_bytes += each.room_bytes
        self._wanted(hour)

    def know(self, demands: Iterable[Demand]) -> None:
        """What models need that are kept ready whether anybody asks or not."""
        self._demands |= {each.model: each for each in demands}

    def take(self) -> Rows:
        """What was counted since the last time."""
        rows = Rows(tuple(self._models.values()), tuple(self._places.values()))
        self._models.clear()
        self._places.clear()
        gone = self._demands.keys() - self._live.keys() - self._kept.keys()
        for model in gone:
            del self._demands[model]
        return rows

    def give_back(self, rows: Rows) -> None:
        """They could not be kept: count them again the next time."""
        for model in rows.models:
            self._count(model)
        for place in rows.places:
            self._place(place)

    def _count(self, row: ModelHour) -> None:
        before = self._models.get((row.hour, row.model))
        self._models[row.hour, row.model] = before.joined(row) if before else row

    def _place(self, row: PlaceHour) -> None:
        before = self._places.get((row.hour, row.place))
        self._places[row.hour, row.place] = before.joined(row) if before else row

    def _wanted(self, hour: int) -> None:
        total = 0
        for model in self._live.keys() | self._kept.keys():
            if (demand := self._demands.get(model)) is not None:
                total += _whole(demand) * max(
                    _replicas(demand, len(self._live.get(model, ()))), self._kept.get(model, 0)
                )
        self._place(PlaceHour(hour, WANTED, total, self._room_bytes))


def _whole(demand: Demand) -> int:
    return need_bytes(demand.per_device, demand.kv_least_bytes) * demand.device_count


def _replicas(demand: Demand, at_once: int) -> int:
    """How many it takes to work on so many requests, as far as it may have them."""
    return min(demand.max_replicas, math.ceil(at_once / max(1, demand.max_num_seqs)))
