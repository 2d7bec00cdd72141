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
        return ModelHour(
            self.hour,
            self.model,
            self.requests + other.requests,
            max(self.most_at_once, other.most_at_once),
            max(self.longest_tokens, other.longest_tokens),
            max(self.most_replicas, other.most_replicas),
            max(self.need_bytes, other.need_bytes),
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


@dataclass(slots=True)
class _Wanted:
    """A model that is wanted now, or kept ready."""

    demand: Demand
    need_bytes: int
    """Of a replica, on all its devices."""
    live: set[Ticket] = field(default_factory=set)
    """Who waits or is served."""
    kept: int = 0
    """Replicas that are kept ready."""
    total_bytes: int = 0
    """Of all its replicas, as many as those requests and that keeping take."""


@dataclass
class Tally:
    """Counts the running hour. One writer; `take` hands over what was counted since."""

    _models: dict[tuple[int, str], ModelHour] = field(default_factory=dict)
    _places: dict[tuple[int, str], PlaceHour] = field(default_factory=dict)
    _wanted: dict[str, _Wanted] = field(default_factory=dict)
    _of: dict[Ticket, str] = field(default_factory=dict)
    _total_bytes: int = 0
    """Of all that is wanted."""
    _room_bytes: int = 0

    def asked(self, hour: int, ticket: Ticket, demand: Demand, tokens: int) -> None:
        """A request has come."""
        wanted = self._know(demand)
        wanted.live.add(ticket)
        self._of[ticket] = demand.model
        self._sum_up(wanted)
        self._count(ModelHour(hour, demand.model, 1, len(wanted.live), tokens, 0, wanted.need_bytes))
        self._note_total(hour)

    def left(self, ticket: Ticket) -> None:
        """It is over, however it ended. Harmless for one that is not known."""
        model = self._of.pop(ticket, None)
        if model is not None:
            wanted = self._wanted[model]
            wanted.live.discard(ticket)
            self._sum_up(wanted)

    def saw(
        self, hour: int, replicas: Mapping[str, int], kept: Iterable[tuple[Demand, int]], places: Iterable[PlaceHour]
    ) -> None:
        """A look at the node: replicas that run, by model, those that are kept ready, and what each place needs now."""
        for wanted in self._wanted.values():
            wanted.kept = 0
        for demand, count in kept:
            self._know(demand).kept = count
        for wanted in list(self._wanted.values()):
            self._sum_up(wanted)
        for model, count in replicas.items():
            if (there := self._wanted.get(model)) is not None:
                self._count(ModelHour(hour, model, most_at_once=len(there.live), most_replicas=count))
        self._room_bytes = 0
        for each in places:
            self._place(each)
            if each.place not in (SLEEPERS, HOST_TIER):
                self._room_bytes += each.room_bytes
        self._note_total(hour)

    def take(self) -> Rows:
        """What was counted since the last time."""
        rows = Rows(tuple(self._models.values()), tuple(self._places.values()))
        self._models.clear()
        self._places.clear()
        return rows

    def give_back(self, rows: Rows) -> None:
        """They could not be kept: count them again the next time."""
        for model in rows.models:
            self._count(model)
        for place in rows.places:
            self._place(place)

    def _know(self, demand: Demand) -> _Wanted:
        wanted = self._wanted.get(demand.model)
        if wanted is None:
            wanted = self._wanted[demand.model] = _Wanted(demand, _whole(demand))
        elif wanted.demand is not demand:
            wanted.demand, wanted.need_bytes = demand, _whole(demand)
        return wanted

    def _sum_up(self, wanted: _Wanted) -> None:
        replicas = max(_replicas(wanted.demand, len(wanted.live)), wanted.kept)
        now = wanted.need_bytes * replicas
        self._total_bytes += now - wanted.total_bytes
        wanted.total_bytes = now
        if not replicas:
            del self._wanted[wanted.demand.model]

    def _count(self, row: ModelHour) -> None:
        before = self._models.get((row.hour, row.model))
        self._models[row.hour, row.model] = before.joined(row) if before else row

    def _place(self, row: PlaceHour) -> None:
        before = self._places.get((row.hour, row.place))
        self._places[row.hour, row.place] = before.joined(row) if before else row

    def _note_total(self, hour: int) -> None:
        before = self._places.get((hour, WANTED))
        if before is None or self._total_bytes > before.peak_bytes or self._room_bytes != before.room_bytes:
            self._place(PlaceHour(hour, WANTED, self._total_bytes, self._room_bytes))


def _whole(demand: Demand) -> int:
    return need_bytes(demand.per_device, demand.kv_least_bytes) * demand.device_count


def _replicas(demand: Demand, at_once: int) -> int:
    """How many it takes to work on so many requests, as far as it may have them."""
    return min(demand.max_replicas, math.ceil(at_once / max(1, demand.max_num_seqs)))
