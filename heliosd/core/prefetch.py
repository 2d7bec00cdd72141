"""Which models to start before anyone asks for them. Values in, values out.

What a start ahead gains is the probability that the model is asked for within the horizon, times the seconds its start
takes. It gets free room, or that of idle replicas whose expected loss is less than half of the gain; whoever is in use,
or was a short while ago, stays.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from heliosd.core.eviction import Resident
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.placement import Fits, place
from heliosd.core.usage import Usage

LEAST_CHANCE = 0.3
"""Of being asked for within the horizon. With less, most starts would be in vain."""
HYSTERESIS = 2.0
"""How many times the loss of those who make room the gain must be: else two models could take turns."""
RESIDENCE_S = 60.0
"""A replica that was used, or became ready, less than that ago does not make room for a guess."""
MOST_PLACED = 8
"""Candidates for which a place is looked for, the most gainful first."""


@dataclass(frozen=True, slots=True)
class Preload:
    """Start this once the victims, all idle, are gone (none: now)."""

    demand: Demand
    devices: tuple[DeviceId, ...]
    victims: tuple[ReplicaId, ...]
    gain_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class _Wish:
    demand: Demand
    chance: float
    reload_s: float
    follows: str | None

    @property
    def gain_s(self) -> float:
        return self.chance * self.reload_s


def propose(
    at: float,
    usage: Usage,
    demand_of: Callable[[str], Demand | None],
    ledger: Ledger,
    residents: Iterable[Resident],
    *,
    horizon_s: float,
    most: int,
    claimed: frozenset[DeviceId] = frozenset(),
    barred: Collection[str] = frozenset(),
) -> list[Preload]:
    """At most `most` starts, the most gainful first, no two of them on one device.

    `demand_of` says what a model would take, None: it is not to be started; `claimed` is what requests wait for;
    `barred` are models to leave alone.
    """
    if most <= 0:
        return []
    residents = [_settled(each, at) for each in residents]
    here = {each.model for each in residents}
    wishes = _wishes(at, usage, demand_of, horizon_s, {*here, *barred})
    chosen: list[Preload] = []
    for wish in wishes[:MOST_PLACED]:
        match place(wish.demand, ledger, residents, claimed):
            case Fits(devices=devices, victims=victims):
                going = [each for each in residents if each.id in victims]
                loss_s = sum(each.loss_s for each in going)
                if loss_s * HYSTERESIS < wish.gain_s or not going:
                    chosen.append(
                        Preload(wish.demand, devices, victims, wish.gain_s, _why(wish, devices, going, horizon_s))
                    )
                    claimed |= set(devices)
            case _:
                continue
        if len(chosen) >= most:
            break
    return chosen


def _settled(each: Resident, at: float) -> Resident:
    """To a guess, who was used just now is as good as busy."""
    return each if each.busy or at - each.last_used >= RESIDENCE_S else replace(each, busy=True)


def _wishes(
    at: float, usage: Usage, demand_of: Callable[[str], Demand | None], horizon_s: float, without: Collection[str]
) -> list[_Wish]:
    found: list[_Wish] = []
    followers = usage.forecast.expected(at)
    for model in usage.forecast.worth_asking(at):
        if model in without:
            continue
        chance = usage.forecast.chance(model, at, horizon_s)
        demand = demand_of(model) if chance >= LEAST_CHANCE else None
        # What is stopped sooner than the request is expected was not meant to wait for one.
        if demand is not None and demand.keep_alive_s >= horizon_s:
            reload_s = usage.reload(model, demand.per_device.total_bytes * demand.device_count)
            follows = followers.get(model)
            found.append(_Wish(demand, chance, reload_s, follows[1] if follows and follows[0] >= chance else None))
    return sorted(found, key=lambda wish: (-wish.gain_s, wish.demand.model))


def _why(wish: _Wish, devices: tuple[DeviceId, ...], going: list[Resident], horizon_s: float) -> str:
    follows = f" after {wish.follows}" if wish.follows else ""
    gain = (
        f"asked within {horizon_s:.0f} s{follows} with {wish.chance:.2f}, starts in {wish.reload_s:.1f} s: "
        f"{wish.gain_s:.1f} s saved"
    )
    where = "+".join(devices)
    if not going:
        return f"{gain}; room is free on {where}"
    losses = " + ".join(f"{each.model} ({each.id}) {each.loss_s:.1f} s" for each in going)
    return f"{gain}; room on {where} of the idle costs {losses}, less than half"
