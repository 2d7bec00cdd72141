"""What a reading of the devices changes: the ledger, and what is to be told of faults, drift and foreign memory."""

from heliosd.core.drift import DriftWatch
from heliosd.core.headroom import HeadroomWatch
from heliosd.core.lifecycle import State
from heliosd.core.messages import Command, DevicesRead, Note
from heliosd.core.warm_pool import WarmPool

_UNSETTLED = frozenset({State.SLEEPING, State.STOPPING, State.FAILED})
"""Nobody knows at a reading how much of its memory such a replica has given back already."""


def reconcile(event: DevicesRead, pool: WarmPool, drift: DriftWatch, headroom: HeadroomWatch) -> list[Command]:
    """Take the reading into the ledger."""
    ledger, replicas = pool.ledger, pool.replicas
    ours = {pid: replica for replica, pids in event.ours for pid in pids if replica in replicas}
    faults_before = {device: ledger.healthy(device) for device in ledger.devices}
    leaving = frozenset(each.id for each in replicas.values() if each.state in _UNSETTLED)
    known = [reading for reading in event.readings if reading.device in ledger.devices]
    ledger.read(known, ours, leaving)
    if event.host is not None:
        ledger.host = event.host
    headroom.foresee(pool, event.at)
    notes: list[Command] = []
    for device, healthy in faults_before.items():
        if healthy and not ledger.healthy(device):
            fault = ledger.readings[device].fault
            notes.append(Note(device, f"device {device} failed: {fault}", warning=True))
        elif not healthy and ledger.healthy(device):
            notes.append(Note(device, f"device {device} is back"))
    return [*notes, *drift.look(ledger), *headroom.look(ledger, event.at, event.spaces), *pool.relieve_host(event.at)]
