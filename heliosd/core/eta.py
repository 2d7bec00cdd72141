"""When a replica that is on its way serves, and how that is told to who waits for it."""

from heliosd.core.lifecycle import State
from heliosd.core.messages import Demand
from heliosd.core.replicas import Replica
from heliosd.core.rooms import expected, takes_s
from heliosd.core.start_forecast import Expected
from heliosd.core.usage import Usage

STOP_S = 1.0
"""What a stop is taken to last, when a client is told how long it will wait."""
WORTH_NAMING_S = 1.0
"""A phase of a start that is expected to take less is not told to who waits."""


def ready_in(usage: Usage, replica: Replica, at: float) -> float:
    """Seconds until it serves, as far as earlier times tell."""
    waking = replica.state in (State.WAKING, State.SLEEPING)
    known = _expected(usage, replica)
    if known is not None and replica.progressed_at is not None:
        return known.left_s(replica.phases_done, at - replica.progressed_at)
    whole_s = takes_s(usage, replica.demand, asleep=waking)
    if replica.swapped and replica.state is State.STARTING:
        whole_s = swap_s(usage, replica.demand, whole_s)
    return whole_s if replica.state is State.SLEEPING else max(0.0, replica.started_at + whole_s - at)


def doing(usage: Usage, replica: Replica) -> str:
    """What it does at the moment. The words stay as long as the phase, and phases too short to read have none: who
    waits is told whenever they change."""
    text = f"{replica.id} is {replica.state}"
    known = _expected(usage, replica)
    phase = known.doing(replica.phases_done) if known and replica.phases_done else None
    if known is None or phase is None or phase[1] < WORTH_NAMING_S:
        return text
    left_s = known.left_s(replica.phases_done, 0.0)
    return f"{text}: {phase[0]} begins, {left_s:.0f} of {known.total_s:.0f} s left"


def turns_s(usage: Usage, demand: Demand, before: int) -> float:
    """How long those before take who wait for the same model."""
    return (before // max(1, demand.max_num_seqs)) * usage.lease(demand.model)


def swap_s(usage: Usage, demand: Demand, reload_s: float) -> float:
    """Seconds until an engine of the same mould has become this model's."""
    return usage.swap(demand.model, demand.per_device.weights_bytes * demand.device_count, reload_s)


def _expected(usage: Usage, replica: Replica) -> Expected | None:
    """The phases of a start or a hot swap that is under way; None where nobody can tell."""
    starting = replica.state is State.STARTING
    return expected(usage, replica.demand, swapped=replica.swapped) if starting else None
