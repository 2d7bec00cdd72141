"""In which tier each model lies, and what reading it from there takes. Values in, values out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from heliosd.core.retention import SPEEDS, Speed, Tier
from heliosd.core.storage_speed import Speed as Measured

LEAST_SHARE = 0.01
"""Of a model's bytes: fewer in a tier, such as a configuration that others need too, do not count."""
OURS = ("helios", "read")
"""Ways of reading that tell of the storage, the one that engines load with first."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the bytes of one model are."""

    model: str
    parts: tuple[tuple[Tier, int], ...]
    """Fastest first."""


@dataclass(frozen=True, slots=True)
class TierSpeed:
    tier: Tier
    speed: Speed


def speeds_of(measured: Iterable[Measured], moved: Mapping[Tier, Speed] = SPEEDS) -> dict[Tier, Speed]:
    """Of each tier: what `doctor --storage` measured, cold of the store and warm of RAM; else what is assumed, or what
    moves were timed at (`moved`)."""
    found = dict(moved)
    by_method = {each.method: each for each in measured}
    used = next((by_method[name] for name in OURS if name in by_method), None)
    if used is not None and used.cold_bytes_per_s:
        found[Tier.NVME] = Speed(moved[Tier.NVME].first_s, used.cold_bytes_per_s)
    if used is not None and used.warm_bytes_per_s:
        found[Tier.HOST] = Speed(moved[Tier.HOST].first_s, used.warm_bytes_per_s)
    return found


@dataclass
class Places:
    """Written by the scheduler alone."""

    speeds: dict[Tier, Speed] = field(default_factory=lambda: dict(SPEEDS))
    at: dict[str, tuple[tuple[Tier, int], ...]] = field(default_factory=dict)

    def told(self, placed: Iterable[Placed], speeds: Iterable[TierSpeed]) -> None:
        """Of all models; who is not named is nowhere."""
        self.at = {each.model: each.parts for each in placed}
        self.speeds |= {each.tier: each.speed for each in speeds}

    def tier(self, model: str) -> Tier | None:
        """The slowest that it has to be read from; None: nobody knows."""
        parts = self.at.get(model, ())
        least = LEAST_SHARE * sum(n_bytes for _, n_bytes in parts)
        return next((tier for tier in reversed(Tier) if any(at is tier and n > least for at, n in parts)), None)

    def read_s(self, model: str, n_bytes: int | None = None) -> float | None:
        """Seconds that reading takes from where it lies: bytes / speed, summed over its tiers. None: nobody knows.

        `n_bytes`: so many, spread as the model is; None: all that it has.
        """
        parts = self.at.get(model)
        if not parts:
            return None
        whole = sum(count for _, count in parts)
        share = 1.0 if n_bytes is None or not whole else n_bytes / whole
        return sum(self.speeds[tier].read_s(round(count * share)) for tier, count in parts if count)

    def from_here_s(self, model: str, seen_s: float, n_bytes: int, then: Tier | None) -> float:
        """What a reading of `n_bytes` that took `seen_s` from the tier `then` takes from where the model lies now.

        What was not the tier's doing (copying, packing) stays: `seen - bytes / speed then + bytes / speed now`.
        """
        now = self.tier(model)
        if now is None or then is None or now is then:
            return seen_s
        here_s = self.read_s(model, n_bytes) or 0.0
        return max(0.0, seen_s - self.speeds[then].read_s(n_bytes)) + here_s
