"""What others would do with the same trace and fleet, to compare with: their documented rules, under our own loop.

- `lru`: ours, but who makes room is whoever was unused longest, whatever it costs to start again.
- `ollama`: at most three models a device, each kept for five minutes; room is made by the one whose time ends first.
- `llama-swap`: one model at a time on the node; the next waits until the last has answered.
- `dedicated`: every model that is asked for has devices of its own, all the time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from heliosd.core.messages import Command, Demand, Limits
from heliosd.core.names import DeviceId
from heliosd.core.queue import Queued
from heliosd.core.replicas import Replica
from heliosd.core.room_making import RoomMaking, Way
from heliosd.core.scheduler import Scheduler
from heliosd.core.usage import Usage
from heliosd.simulation.fleet import Fleet
from heliosd.simulation.trace import Asked
from heliosd.simulation.world import Outcome, Speeds, World

OLLAMA_MODELS_A_DEVICE = 3
OLLAMA_KEEP_ALIVE_S = 300.0


@dataclass
class Unvalued(Usage):
    """Nothing costs anything to lose: then the longest unused goes first."""

    idle_gib_s: float = 0.0

    def reuse(self, model: str, at: float) -> float:
        return 0.0


@dataclass(frozen=True)
class AtMost(RoomMaking):
    """At most so many models at a time."""

    most: int = 1

    def room_for(
        self, queued: Queued, demand: Demand, asleep: Replica | None, claimed: set[DeviceId], at: float
    ) -> Way:
        replicas = self.pool.replicas.values()
        if len(replicas) >= self.most:
            idle = [each for each in replicas if each.idle]
            gone: list[Command] = []
            if idle:
                last = min(idle, key=lambda each: (each.last_used, each.id))
                gone = self.pool.step_down(last.id, at, f"at most {self.most} models are loaded at a time")
            return Way(gone, f"{self.most} models are loaded", None)
        return super().room_for(queued, demand, asleep, claimed, at)


@dataclass
class Counted(Scheduler):
    """At most so many models at a time."""

    most: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._make_rooms_with(
            AtMost(self.pool, self._queue, self.residents, self.neighbours, self.ahead.preloads, self.most)
        )


def helios(fleet: Fleet, trace: Sequence[Asked], speeds: Speeds) -> Outcome:
    """Models sleep where the fleet has host memory for them."""
    sleeps = replace(_LIMITS, sleep=fleet.host_bytes > 0, host_bytes=fleet.host_bytes)
    return World(fleet, Scheduler(sleeps), speeds).run(trace)


def lru(fleet: Fleet, trace: Sequence[Asked], speeds: Speeds) -> Outcome:
    return World(fleet, Scheduler(_LIMITS, usage=Unvalued()), speeds).run(trace)


def ollama(fleet: Fleet, trace: Sequence[Asked], speeds: Speeds) -> Outcome:
    models = {
        name: replace(model, demand=replace(model.demand, keep_alive_s=OLLAMA_KEEP_ALIVE_S))
        for name, model in fleet.models.items()
    }
    most = OLLAMA_MODELS_A_DEVICE * len(fleet.devices)
    scheduler = Counted(_LIMITS, usage=Unvalued(), most=most)
    return World(replace(fleet, models=models), scheduler, speeds).run(trace)


def llama_swap(fleet: Fleet, trace: Sequence[Asked], speeds: Speeds) -> Outcome:
    return World(fleet, Counted(_LIMITS, usage=Unvalued(), most=1), speeds).run(trace)


def dedicated(fleet: Fleet, trace: Sequence[Asked], speeds: Speeds) -> Outcome:
    """Each model is loaded once, before the first request; the fleet's devices are as many as that takes."""
    known = [asked for asked in trace if asked.model in fleet.models]
    used = {asked.model: fleet.models[asked.model] for asked in known}
    outcome = Outcome(requests=len(trace), answered=len(known), starts=len(used), events=len(trace))
    outcome.refused["model_not_found"] = len(trace) - len(known)
    outcome.first_token_s = [speeds.first_token_s(asked) for asked in known]
    outcome.swap_s = sum(model.load_s for model in used.values())
    ends = [asked.at_s + speeds.answer_s(asked, fleet.models[asked.model]) for asked in known]
    outcome.span_s = max(ends, default=0.0)
    devices = sum(model.demand.device_count for model in used.values())
    outcome.device_s = devices * outcome.span_s
    largest = max((device.capacity_bytes for device in fleet.devices), default=0)
    outcome.capacity_bytes = devices * largest
    held = sum(model.demand.per_device.total_bytes * model.demand.device_count for model in used.values())
    outcome.promised_byte_s = held * outcome.span_s
    return outcome


_LIMITS = Limits(queue_length=10**9, sleep=False, residence_s=0.0)
Policy = Callable[[Fleet, Sequence[Asked], Speeds], Outcome]
POLICIES: dict[str, Policy] = {
    "helios": helios,
    "lru": lru,
    "ollama": ollama,
    "llama-swap": llama_swap,
    "dedicated": dedicated,
}
