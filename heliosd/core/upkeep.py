"""What is done without a request asking for it: pins kept, starts ahead, idle replicas sent down, sleep on an
operator's word, a larger KV cache."""

from dataclasses import dataclass

from heliosd.core.ahead import Ahead
from heliosd.core.lifecycle import COMING, State
from heliosd.core.messages import Command, DeviceDrainAsked, Note, ReplicaPressed, SleepAsked, StartAsked
from heliosd.core.names import ReplicaId
from heliosd.core.placement import Fits, place
from heliosd.core.queue import Queue
from heliosd.core.replicas import Replica
from heliosd.core.room_making import RoomMaking
from heliosd.core.warm_pool import Key, WarmPool


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Owned by the scheduler."""

    pool: WarmPool
    queue: Queue
    ahead: Ahead
    rooms: RoomMaking

    def keep_wanted(self, at: float) -> list[Command]:
        """Start or wake what an operator pinned, where there is room or something idle to make it."""
        commands: list[Command] = []
        for wanted in list(self.pool.missing()):
            asleep = next((each for each in self.pool.of(wanted.demand) if each.state is State.ASLEEP), None)
            demand = self.pool.adjusted(wanted.demand)
            room = self.rooms.find(demand, asleep, frozenset(), at)
            match room.at:
                case Fits(devices=devices, victims=(), reason=reason):
                    commands += self.rooms.bring(room, demand, devices, asleep, at, f"pinned; {reason}")[1]
                case Fits(victims=victims, reason=reason):
                    why = f"room for {demand.model}, which is pinned: {reason}"
                    commands += self.rooms.all_step_down(victims, at, why, sleep=room.sleep)
                case _:
                    pass
        return commands

    def start_ahead(self, at: float) -> list[Command]:
        """Start what is likely to be asked for."""
        commands: list[Command] = []
        coming = {each.demand.key for each in self.pool.replicas.values() if each.state in COMING}
        waits = bool(self._awaited() - coming)
        for sleeper, why in self.ahead.sleepers(at, self.pool, requests_wait=waits):
            whole_bytes = sleeper.demand.per_device.total_bytes * len(sleeper.devices)
            self.ahead.preloads.started(sleeper.id, sleeper.demand.model, whole_bytes, at)
            commands.append(self.pool.wake(sleeper, at, f"ahead of requests: {why}"))
        for each in self.ahead.proposals(at, self.pool, requests_wait=waits):
            if each.victims:
                why = f"room for {each.demand.model}, ahead of requests: {each.reason}"
                commands += self.rooms.all_step_down(each.victims, at, why, sleep=False)
            else:
                replica, started = self.pool.start(each.demand, each.devices, at, f"ahead of requests: {each.reason}")
                whole_bytes = replica.demand.per_device.total_bytes * len(replica.devices)
                self.ahead.preloads.started(replica.id, replica.demand.model, whole_bytes, at)
                commands.append(started)
        return commands

    def expire(self, at: float) -> list[Command]:
        """Send those down that were idle, or asleep, for as long as they are kept."""
        commands: list[Command] = []
        for replica in self._dispensable():
            if at >= self._expires_at(replica):
                idle_s = at - replica.last_used if replica.state is State.ASLEEP else replica.keep_alive_s
                commands += self.pool.step_down(replica.id, at, f"idle for {idle_s:.0f} s", sleep=True)
        return commands

    def next_expiry(self) -> float:
        """When `expire` will find somebody; infinite: never."""
        return min(map(self._expires_at, self._dispensable()), default=float("inf"))

    def _dispensable(self) -> list[Replica]:
        """Nobody waits for them, and nobody pinned them."""
        awaited, pinned = self._awaited(), self.pool.pinned()
        return [
            each for each in self.pool.replicas.values() if each.demand.key not in awaited and each.id not in pinned
        ]

    def _expires_at(self, replica: Replica) -> float:
        """When it has been idle, or asleep, for so long that it takes a step down the ladder."""
        if replica.state is State.ASLEEP and replica.slept_at is not None:
            return replica.slept_at + self.pool.limits.asleep_s
        return replica.expires_at

    def _awaited(self) -> set[Key]:
        """The keys of the demands that wait: what serves them stays, though it is idle."""
        return {queued.demand.key for queued in self.queue.waiting.values()}

    def sleepless(self, replica_id: ReplicaId, at: float) -> str | None:
        """Why a replica cannot be put to sleep; None when it can, or sleeps."""
        replica = self.pool.replicas.get(replica_id)
        if replica is None or replica.state in (State.SLEEPING, State.ASLEEP):
            return None
        if replica.state is not State.READY:
            return f"it is {replica.state}"
        if not self.pool.limits.sleep:
            return "pool.sleep is false"
        if not replica.sleep_levels:
            return "its engine cannot sleep on its devices"
        if not self.pool.sleep_level(replica, at):
            return "its last sleep went wrong, or host memory has no room for its weights (pool.host_memory)"
        return None

    def sleep_asked(self, event: SleepAsked) -> list[Command]:
        """Put a replica to sleep, or say why not."""
        replica = self.pool.replicas.get(event.replica)
        if replica is None or replica.state is not State.READY:
            return []
        if why := self.sleepless(replica.id, event.at):
            return [Note(replica.demand.model, f"cannot put {replica.id} to sleep: {why}", warning=True)]
        self.ahead.preloads.bar(replica.demand.model)
        return self.pool.step_down(replica.id, event.at, "an operator asked for it", sleep=True)

    def start_asked(self, event: StartAsked) -> list[Command]:
        """Start one more replica, or have idle ones make room for it."""
        demand = self.pool.adjusted(event.demand)
        sleeper = self.pool.replicas.get(event.sleeper) if event.sleeper else None
        if sleeper is not None and sleeper.state is State.ASLEEP:
            return self._wake_asked(sleeper, event.at)
        room = self.rooms.find(demand, None, frozenset(), event.at)
        match room.at:
            case Fits(devices=devices, victims=(), reason=reason):
                return [self.pool.start(demand, devices, event.at, f"an operator asked for it; {reason}")[1]]
            case Fits(victims=victims, reason=reason):
                why = f"room for {demand.model}, which an operator asked for: {reason}"
                return self.rooms.all_step_down(victims, event.at, why, sleep=room.sleep)
        return []

    def _wake_asked(self, sleeper: Replica, at: float) -> list[Command]:
        """Wake this one, though a start elsewhere may be faster: he said which."""
        others = [each for each in self.rooms.residents.at(at) if each.id != sleeper.id]
        match place(self.pool.still_missing(sleeper), self.pool.ledger, others, only=sleeper.devices):
            case Fits(victims=(), reason=reason):
                return [self.pool.wake(sleeper, at, f"an operator asked for it; {reason}")]
            case Fits(victims=victims, reason=reason):
                why = f"room for {sleeper.id}, which an operator wakes: {reason}"
                return self.rooms.all_step_down(victims, at, why, sleep=False)
        return []

    def device_drain_asked(self, event: DeviceDrainAsked) -> list[Command]:
        """Take a device out, and send away who is there; or take it in again."""
        drained = self.pool.ledger.drained
        if not event.out:
            drained.discard(event.device)
            return []
        drained.add(event.device)
        there = [each.id for each in self.pool.replicas.values() if event.device in each.devices]
        commands: list[Command] = []
        for replica in there:
            commands += self.pool.step_down(replica, event.at, f"an operator drains {event.device}")
        return commands

    def grow(self, event: ReplicaPressed) -> list[Command]:
        """Restart a replica with a larger KV cache, where that is worth the seconds: many wait for it, and nobody for
        the room that it would take."""
        replica = self.pool.replicas.get(event.replica)
        if replica is None or replica.state is not State.READY:
            return []
        waiting = [each for each in self.queue.waiting.values() if each.demand.key == replica.demand.key]
        if len(waiting) < len(self.queue.waiting):
            return []
        return self.pool.grow(replica, event.at, len(waiting))
