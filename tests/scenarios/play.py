"""Plays a scenario file against a real scheduler: what happens on the left, what the scheduler says on the right.

    device g0 80GiB
    model llama 50GiB, qwen 50GiB
    0s   t1 asks for llama  -> start r1 (llama on g0); hold t1: r1 is starting
    12s  r1 is ready        -> grant t1 r1

`python -m tests.scenarios --rewrite` writes down what the scheduler says today, for a person to read in the diff.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from heliosd.core.hardware import Device, DeviceKind, DeviceReading, LinkKind
from heliosd.core.messages import (
    Command,
    Demand,
    DevicesFound,
    DevicesRead,
    DrainAsked,
    DrainReplica,
    Event,
    Footprint,
    Forward,
    Grant,
    Hold,
    Limits,
    LimitsChanged,
    Note,
    PeersChanged,
    Priority,
    Refuse,
    ReplicaBecameReady,
    ReplicaExited,
    ReplicaSlept,
    ReplicaWoke,
    RequestArrived,
    RequestReleased,
    SleepReplica,
    StartReplica,
    StopAsked,
    StopReplica,
    Terms,
    Tick,
    WakeReplica,
)
from heliosd.core.names import DeviceId, PeerName, ReplicaId, Ticket
from heliosd.core.peer_news import PeerNews
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB, parse_bytes, parse_seconds

FOLDER = Path(__file__).parent
HOST_BYTES = 200 * GiB
"""What sleepers may hold."""
FILES = sorted(FOLDER.glob("*.txt"))


@dataclass
class Player:
    scheduler: Scheduler = field(default_factory=Scheduler)
    devices: list[Device] = field(default_factory=list)
    demands: dict[str, Demand] = field(default_factory=dict)
    holds: dict[PeerName, tuple[str, ...]] = field(default_factory=dict)
    news: dict[PeerName, PeerNews] = field(default_factory=dict)

    def play(self, text: str) -> str:
        """The same text with what the scheduler says after each arrow."""
        return "\n".join(self._line(line.rstrip()) for line in text.splitlines()) + "\n"

    def _line(self, line: str) -> str:
        if not line or line.startswith("#"):
            return line
        told = line.partition("->")[0].rstrip()
        first, _, rest = told.partition(" ")
        if first in ("device", "link", "model", "patience"):
            getattr(self, f"_{first}")(rest.strip())
            return line
        commands = self.scheduler.handle(self._event(parse_seconds(first), rest.strip()))
        if not commands:
            return told
        said = [_say(command) for command in commands]
        return f"{told:<34} -> {said[0]}" + "".join(f"\n{'':<34}  ; {each}" for each in said[1:])

    def _device(self, rest: str) -> None:
        name, size = rest.split()
        self.devices.append(Device(DeviceId(name), DeviceKind.SIMULATED, "card", parse_bytes(size)))
        self.scheduler.handle(LimitsChanged(0.0, Limits(safety_ratio=0.0, host_bytes=HOST_BYTES)))
        self.scheduler.handle(DevicesFound(0.0, tuple(self.devices)))

    def _link(self, rest: str) -> None:
        """`link g0+g1 nvlink`: how all of these reach one another."""
        names, _, kind = rest.partition(" ")
        ends = [DeviceId(name) for name in names.split("+")]
        for at, device in enumerate(self.devices):
            links = tuple((end, LinkKind(kind)) for end in ends if end != device.id and device.id in ends)
            self.devices[at] = replace(device, links=device.links + links)
        self.scheduler.handle(DevicesFound(0.0, tuple(self.devices)))

    def _model(self, rest: str) -> None:
        for each in rest.split(","):
            name, size, *more = each.split()
            keep_alive_s = parse_seconds(more[1]) if more[:1] == ["keep-alive"] else 300.0
            count = int(more[1]) if more[:1] == ["devices"] else 1
            stages = int(more[3]) if more[2:3] == ["stages"] else 1
            footprint = Footprint(parse_bytes(size), 0, 0)
            self.demands[name] = Demand(
                name, "rev", footprint, device_count=count, pipeline_parallel=stages, keep_alive_s=keep_alive_s
            )

    def _patience(self, rest: str) -> None:
        self.scheduler.handle(LimitsChanged(0.0, Limits(patience_s=parse_seconds(rest), safety_ratio=0.0)))

    def _event(self, at: float, told: str) -> Event:
        forms: list[tuple[str, Callable[[re.Match[str]], Event]]] = [
            (r"(\S+) asks for (\S+)(?: until (\S+))?( for a peer)?(?: as (\w+))?", lambda m: self._asks(at, m)),
            (r"(t\S*) is done", lambda m: RequestReleased(at, Ticket(m[1]))),
            (r"(r\d+) is ready(?: with (\S+))?( and can sleep)?", lambda m: self._ready(at, m)),
            (r"(r\d+) sleeps and keeps (\S+)", lambda m: self._slept(at, m)),
            (r"(r\d+) is awake", lambda m: ReplicaWoke(at, ReplicaId(m[1]), self._whole(ReplicaId(m[1])))),
            (r"(r\d+) is gone", lambda m: ReplicaExited(at, ReplicaId(m[1]), None)),
            (r"(r\d+) dies: (.*)", lambda m: ReplicaExited(at, ReplicaId(m[1]), m[2])),
            (r"(g\d+) has (\S+) foreign", lambda m: self._reading(at, m[1], parse_bytes(m[2]), None)),
            (r"(g\d+) fails: (.*)", lambda m: self._reading(at, m[1], 0, m[2])),
            (r"(\S+) holds (.*)", lambda m: self._peer(at, m)),
            (r"(\S+) tells: (.*) ready, (\S+) free, (\d+) waiting", lambda m: self._tells(at, m)),
            (r"an operator stops (r\d+)", lambda m: StopAsked(at, ReplicaId(m[1]))),
            (r"the node drains", lambda m: DrainAsked(at)),
            (r"tick", lambda m: Tick(at)),
        ]
        for form, make in forms:
            if match := re.fullmatch(form, told):
                return make(match)
        raise ValueError(f"cannot read {told!r}")

    def _asks(self, at: float, match: re.Match[str]) -> Event:
        terms = Terms(priority=Priority[match[5].upper()] if match[5] else Priority.NORMAL)
        deadline_at = parse_seconds(match[3]) if match[3] else None
        demand = self.demands.get(match[2])
        return RequestArrived(
            at, Ticket(match[1]), match[2], demand, deadline_at, forwarded=bool(match[4]), terms=terms
        )

    def _ready(self, at: float, match: re.Match[str]) -> Event:
        replica = self.scheduler.replicas[ReplicaId(match[1])]
        size = parse_bytes(match[2]) if match[2] else replica.demand.per_device.total_bytes
        levels = frozenset({1, 2}) if match[3] else frozenset[int]()
        return ReplicaBecameReady(at, replica.id, Footprint(size, 0, 0), levels)

    def _slept(self, at: float, match: re.Match[str]) -> Event:
        replica = self.scheduler.replicas[ReplicaId(match[1])]
        residue = Footprint(0, 0, parse_bytes(match[2]))
        return ReplicaSlept(at, replica.id, 1, residue, replica.demand.per_device.weights_bytes)

    def _whole(self, replica: ReplicaId) -> Footprint:
        return self.scheduler.replicas[replica].demand.per_device

    def _reading(self, at: float, device: str, foreign_bytes: int, fault: str | None) -> Event:
        mine = self.scheduler.ledger.promised_bytes(DeviceId(device))
        return DevicesRead(at, (DeviceReading(DeviceId(device), foreign_bytes + mine, 0, fault=fault),), ())

    def _peer(self, at: float, match: re.Match[str]) -> Event:
        self.holds[PeerName(match[1])] = tuple(name.strip() for name in match[2].split(","))
        return PeersChanged(at, tuple(self.holds.items()), tuple(self.news.values()))

    def _tells(self, at: float, match: re.Match[str]) -> Event:
        peer, ready = PeerName(match[1]), tuple(name.strip() for name in match[2].split(",") if name != "nothing")
        self.news[peer] = PeerNews(peer, ready, parse_bytes(match[3]), int(match[4]))
        return PeersChanged(at, tuple(self.holds.items()), tuple(self.news.values()))


def _say(command: Command) -> str:
    match command:
        case Grant(ticket, replica):
            return f"grant {ticket} {replica}"
        case Forward(ticket, peer, reason):
            return f"forward {ticket} to {peer}: {reason}"
        case Refuse(ticket, code, reason, _, cause):
            return f"refuse {ticket} ({code}): {reason}" + (f" [{cause}]" if cause else "")
        case Hold(ticket, reason):
            return f"hold {ticket}: {reason}"
        case StartReplica(replica, demand, devices):
            return f"start {replica} ({demand.model} on {'+'.join(devices)})"
        case SleepReplica(replica, level, reason):
            return f"sleep {replica} at level {level}: {reason}"
        case WakeReplica(replica, reason):
            return f"wake {replica}: {reason}"
        case DrainReplica(replica, reason):
            return f"drain {replica}: {reason}"
        case StopReplica(replica):
            return f"stop {replica}"
        case Note(_, reason):
            return f"note: {reason}"


def without_answers(text: str) -> str:
    """A scenario as a person writes it: continuation lines of answers are the player's."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("; "))
