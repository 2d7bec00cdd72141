"""Starting models before anyone asks: when to look, what is known to start, and what became of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from heliosd.core.lifecycle import COMING, State
from heliosd.core.messages import Demand
from heliosd.core.placement import Fits, place
from heliosd.core.prefetch import LEAST_CHANCE, Preload, propose
from heliosd.core.preloads import Preloads
from heliosd.core.replicas import Replica
from heliosd.core.warm_pool import WarmPool

LOOK_EVERY_S = 1.0
"""Between two looks there is at least so much: events come by the hundred a second."""


@dataclass
class Ahead:
    """Owned by the scheduler."""

    demands: dict[str, Demand] = field(default_factory=dict)
    """As they were last told, by model."""
    preloads: Preloads = field(default_factory=Preloads)
    _look_at: float = 0.0

    def know(self, demands: Iterable[Demand]) -> None:
        self.demands |= {each.model: each for each in demands}

    def next_look(self, pool: WarmPool) -> float:
        """When the forecast may say something new without anything having happened; infinite: never."""
        if not pool.limits.prefetch_loads:
            return float("inf")
        return max(self._look_at, pool.usage.forecast.candidates.next_at)

    def sleepers(self, at: float, pool: WarmPool, *, requests_wait: bool) -> list[tuple[Replica, str]]:
        """Which sleeper to wake now, because it is likely to be asked for and there is free room: one at a time."""
        limits = pool.limits
        coming = sum(1 for each in pool.replicas.values() if each.state in COMING)
        if at < self._look_at or requests_wait or coming >= limits.prefetch_loads:
            return []
        for replica in pool.replicas.values():
            if replica.state is not State.ASLEEP or replica.demand.model in self.preloads.barred:
                continue
            if replica.keep_alive_s < limits.prefetch_horizon_s:
                continue  # it would sleep again before it is asked for
            chance = pool.usage.forecast.chance(replica.demand.model, at, limits.prefetch_horizon_s)
            if chance < LEAST_CHANCE:
                continue
            room = place(pool.still_missing(replica), pool.ledger, (), only=replica.devices)
            if isinstance(room, Fits) and not room.victims:
                why = f"asked within {limits.prefetch_horizon_s:.0f} s with {chance:.2f}, sleeps; {room.reason}"
                return [(replica, why)]
        return []

    def proposals(self, at: float, pool: WarmPool, *, requests_wait: bool) -> list[Preload]:
        """What to start now, or to make room for; nothing while a request waits for room itself."""
        limits = pool.limits
        if not limits.prefetch_loads or at < self._look_at:
            return []
        self._look_at = at + LOOK_EVERY_S
        pool.usage.forecast.come_due(at)
        coming = sum(1 for each in pool.replicas.values() if each.state in COMING)
        if requests_wait or coming >= limits.prefetch_loads:
            return []

        def demand_of(model: str) -> Demand | None:
            known = self.demands.get(model)
            failing = known is not None and pool.breakers.open_for(model, at)
            return None if known is None or failing else pool.adjusted(known)

        return propose(
            at,
            pool.usage,
            demand_of,
            pool.ledger,
            pool.residents(at),
            horizon_s=limits.prefetch_horizon_s,
            most=limits.prefetch_loads - coming,
            barred=self.preloads.barred,
        )
