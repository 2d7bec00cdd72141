"""Sees a device or a volume run out before it does, from what the scheduler does not decide: foreign processes, engines
that hold ever more than was booked, files."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from heliosd.core.exhaustion import NOT_IN_SIGHT, Exhaustion, Filling, by_forecast
from heliosd.core.hardware import Space
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Note
from heliosd.core.names import DeviceId
from heliosd.core.units import format_bytes
from heliosd.core.warm_pool import WarmPool

FORESIGHT_S = 30.0
"""Nothing is started on a device that will be full so soon, at the speed it fills now."""
TREND_FORESIGHT_S = 120.0
"""Likewise at the speed it has been filling for a while. Host memory that will be used up so soon takes no sleeper."""
WARN_S = 3600.0
"""What will be full so soon is told of."""
RELIEF = 2.0
"""It is open again when it will last for so many times longer."""
CALM_S = 30.0
"""One that was closed for a second time within `AGAIN_S` must also be calm for so long, then for twice as long, …"""
AGAIN_S = 900.0
_LONGEST_CALM_S = 600.0
HOST = "host"
"""Stands for the host memory that sleepers may hold, where a volume is named."""
_FORECAST_EVERY_S = 60.0
_MODELS_FORECAST = 256
"""The last asked for; the others hardly matter, and each costs some microseconds."""


@dataclass
class Closing:
    """How often a device was closed, each time soon after the last."""

    times: int = 0
    at: float = float("-inf")
    calm_since: float | None = None
    """None: it is not calm, or open."""

    @property
    def calm_s(self) -> float:
        return 0.0 if self.times < 2 else min(_LONGEST_CALM_S, CALM_S * 2 ** (self.times - 2))


@dataclass
class HeadroomWatch:
    """Of all devices and volumes. Two readings in a row must say that a device fills fast: one process that takes its
    memory at once is not a trend."""

    at: float | None = None
    foreign: dict[DeviceId, int] = field(default_factory=dict)
    slopes: dict[DeviceId, float] = field(default_factory=dict)
    """Bytes a second that foreign memory grew between the last two readings."""
    filling: dict[str, Filling] = field(default_factory=dict)
    trends: dict[str, Exhaustion] = field(default_factory=dict)
    """When each device and space will be full if it goes on filling as it did."""
    forecast: Exhaustion = NOT_IN_SIGHT
    """When the devices together will not hold what is likely to be asked for."""
    forecast_at: float | None = None
    closings: dict[DeviceId, Closing] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)
    spaces: list[Space] = field(default_factory=list)
    """As they were read last."""

    def look(self, ledger: Ledger, at: float, spaces: Iterable[Space] = ()) -> list[Note]:
        """Close devices that are about to run out, open those that no longer are; tell both once."""
        notes: list[Note] = []
        passed_s = at - self.at if self.at is not None else 0.0
        for device in ledger.devices:
            now = ledger.foreign.get(device, 0)
            grows = (now - self.foreign.get(device, now)) / passed_s if passed_s > 0 else 0.0
            slope, self.slopes[device] = min(grows, self.slopes.get(device, 0.0)), grows
            self.foreign[device] = now
            left = ledger.devices[device].capacity_bytes - now - ledger.promised_bytes(device)
            lasts_s = max(0, left) / slope if slope > 0 else float("inf")
            seen = self._trend(device, at, now + ledger.beyond_booked_bytes(device), left)
            notes += self._judge(ledger, device, at, left, lasts_s, slope, seen)
        self.spaces = [*_host(ledger), *spaces]
        for space in self.spaces:
            seen = self._trend(space.name, at, space.used_bytes, space.left_bytes)
            if space.name == HOST:
                soon = TREND_FORESIGHT_S * (RELIEF if ledger.host_running_out else 1.0)
                ledger.host_running_out = seen.basis == "trend" and seen.after_s <= soon
            notes += self._warn(space, seen)
        self.at = at
        return notes

    def foresee(self, pool: WarmPool, at: float) -> None:
        """Ask the forecast, now and then, whether what is likely to be asked for fits beside what is there."""
        if self.forecast_at is not None and at - self.forecast_at < _FORECAST_EVERY_S:
            return
        self.forecast_at = at
        ledger, habits = pool.ledger, pool.usage.forecast.habits
        free = sum(max(0, ledger.free_bytes(device)) for device in ledger.devices if ledger.healthy(device))
        there = {replica.demand.model for replica in pool.replicas.values()}
        known = [model for model in pool.sizes if model in habits and model not in there]
        models = heapq.nlargest(_MODELS_FORECAST, known, key=lambda model: habits[model].heat.at)

        def wants(within_s: float) -> Iterable[tuple[float, int]]:
            return ((pool.usage.forecast.chance(model, at, within_s), pool.sizes[model]) for model in models)

        self.forecast = by_forecast(free, wants) if models else NOT_IN_SIGHT

    def exhaustion(self, place: str, *, device: bool) -> Exhaustion:
        """When it will be full: the earlier of trend and, for a device, forecast."""
        seen = self.trends.get(place, NOT_IN_SIGHT)
        return min(seen, self.forecast, key=lambda each: each.after_s) if device else seen

    def all_spaces(self) -> tuple[tuple[Space, Exhaustion], ...]:
        """What is no device, and when it will be full."""
        return tuple((space, self.exhaustion(space.name, device=False)) for space in self.spaces)

    def _trend(self, place: str, at: float, used_bytes: int, left_bytes: int) -> Exhaustion:
        filling = self.filling.setdefault(place, Filling())
        if (
            filling.read(at, used_bytes)
            or left_bytes <= 0
            or place not in self.trends
            or self.trends[place].basis == "full"
        ):
            self.trends[place] = filling.exhaustion(left_bytes)
        return self.trends[place]

    def _judge(
        self, ledger: Ledger, device: DeviceId, at: float, left: int, lasts_s: float, slope: float, seen: Exhaustion
    ) -> list[Note]:
        trend_s = seen.after_s if seen.basis == "trend" else float("inf")
        if device not in ledger.running_out:
            if lasts_s > FORESIGHT_S and trend_s > TREND_FORESIGHT_S:
                return []
            ledger.running_out.add(device)
            closing = self.closings.setdefault(device, Closing())
            closing.times = closing.times + 1 if at - closing.at < AGAIN_S + closing.calm_s else 1
            closing.at, closing.calm_since = at, None
            if lasts_s <= FORESIGHT_S:
                why = (
                    f"{device} will be full in {lasts_s:.0f} s: foreign processes take {format_bytes(int(slope))} a "
                    f"second of the {format_bytes(left)} that are left; nothing is started there"
                )
            else:
                why = (
                    f"{device} will be full in {_when(seen)}: what is not booked takes more and more of the "
                    f"{format_bytes(left)} that are left; nothing is started there"
                )
            return [Note(device, why, warning=True)]
        closing = self.closings.setdefault(device, Closing())
        if lasts_s <= FORESIGHT_S * RELIEF or trend_s <= TREND_FORESIGHT_S * RELIEF:
            closing.calm_since = None
            return []
        if closing.calm_since is None:
            closing.calm_since = at
        if at - closing.calm_since >= closing.calm_s:
            ledger.running_out.discard(device)
            return [Note(device, f"{device} no longer runs out of memory")]
        return []

    def _warn(self, space: Space, seen: Exhaustion) -> list[Note]:
        name = "host memory for sleeping models" if space.name == HOST else f"the disk of the {space.name}"
        if space.name not in self.warned and seen.after_s <= WARN_S and seen.basis == "trend":
            self.warned.add(space.name)
            why = f"{name} will be full in {_when(seen)}: {format_bytes(space.left_bytes)} are left"
            return [Note(space.name, why, warning=True)]
        if space.name in self.warned and seen.after_s > WARN_S * RELIEF:
            self.warned.discard(space.name)
            return [Note(space.name, f"{name} no longer runs out")]
        return []


def _host(ledger: Ledger) -> tuple[Space, ...]:
    """What others hold of the machine's RAM, and what another sleeper may take."""
    if ledger.host is None or not ledger.host_bytes:
        return ()
    others = ledger.host.total_bytes - ledger.host.available_bytes - sum(ledger.staged.values()) - ledger.tier_bytes
    return (Space(HOST, max(0, others), ledger.host_left_bytes),)


def _when(seen: Exhaustion) -> str:
    return f"{seen.after_s:.0f} s ({seen.low_s:.0f} to {seen.high_s:.0f} s with 99 % certainty)"
