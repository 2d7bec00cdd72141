"""A history of a busy node for tests that need events, not what they mean: some starts fail, some clients give up."""

import random
from dataclasses import dataclass, field

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import Command, Demand, Event, Footprint, ReplicaBecameReady, ReplicaExited
from heliosd.core.names import DeviceId
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB
from heliosd.simulation.fleet import Fleet, Model
from heliosd.simulation.trace import Asked
from heliosd.simulation.world import World


@dataclass
class Listening(Scheduler):
    """Remembers what it was told."""

    told: list[Event] = field(default_factory=list)

    def handle(self, event: Event) -> list[Command]:
        self.told.append(event)
        return super().handle(event)


class Unreliable(World):
    dice = random.Random(0)

    def _later(self, event: Event) -> None:
        if isinstance(event, ReplicaBecameReady) and self.dice.random() < 0.1:
            event = ReplicaExited(event.at, event.replica, "the engine did not start")
        super()._later(event)


def history(requests: int = 150, seed: int = 5) -> list[Event]:
    """What a scheduler with two devices and six models is told; give it to a fresh `Scheduler`."""
    dice = Unreliable.dice = random.Random(seed)
    devices = tuple(Device(DeviceId(f"g{at}"), DeviceKind.SIMULATED, "card", 80 * GiB) for at in range(2))
    demands = [
        Demand(f"m{at}", "rev", Footprint(size * GiB, GiB, GiB)) for at, size in enumerate((8, 20, 30, 45, 60, 99))
    ]
    fleet = Fleet(devices, {each.model: Model(each, 2.0) for each in demands})
    scheduler, at_s, trace = Listening(), 0.0, []
    for _ in range(requests):
        at_s += dice.expovariate(0.5)
        trace.append(Asked(at_s, dice.choice(demands).model, 100, dice.randrange(10, 400)))
    Unreliable(fleet, scheduler).run(trace)
    return scheduler.told
