"""Moving a replica to another device, where that is better than to lose those who are in the way."""

from heliosd.core.defragment import Plan, defragment
from heliosd.core.messages import Command, Demand
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.residents import Residents
from heliosd.core.rooms import takes_s

MOVES_LOOKED_AT = 200
"""In some milliseconds; a request waits meanwhile."""
WORTH_MOVING_S = 1.0
"""Victims whose loss is expected to cost less are not moved elsewhere: to look for a place would not pay."""


def worthwhile_move(
    demand: Demand, victims: tuple[ReplicaId, ...], residents: Residents, claimed: frozenset[DeviceId], at: float
) -> Plan | None:
    """A move to another device instead of the loss of the victims, where these are more likely than not to be asked
    for soon, so that they would have to start again anyway. One that needs others to go first is not worth it."""
    pool, there = residents.pool, residents.at(at)
    loss_s = residents.cost_s(victims, at)
    if loss_s < WORTH_MOVING_S:
        return None
    reload_s = {each.id: takes_s(pool.usage, pool.replicas[each.id].demand, asleep=False) for each in there}
    plan = defragment(demand, pool.ledger, there, reload_s, claimed, most_states=MOVES_LOOKED_AT)
    if plan is None or loss_s < plan.cost_s / 2 or len(plan.moves) > 1:
        return None
    (move,) = plan.moves
    moved = pool.replicas[move.replica].demand
    closed = move.end in pool.ledger.running_out or pool.breakers.open_for(moved.model, at)
    fits = move.copied and moved.per_device.total_bytes <= pool.ledger.free_bytes(move.end)
    return plan if fits and not closed else None


def carry_out(plan: Plan, demand: Demand, residents: Residents, at: float) -> list[Command]:
    """Start each on its new device, and send the old one away: both have room there until it has gone."""
    pool = residents.pool
    commands: list[Command] = []
    for move in plan.moves:
        old = pool.replicas[move.replica]
        why = f"moves from {move.start} to {move.end}: room for {demand.model}: {plan.reason}"
        replica, started = pool.start(old.demand, (move.end,), at, f"{old.id} {why}")
        commands += [started, *pool.step_down(old.id, at, f"{replica.id} starts instead; it {why}")]
    return commands
