"""What the journal says of events and commands: one entry for each decision, with its reason."""

from dataclasses import asdict
from typing import assert_never

from heliosd.core.gist import gist
from heliosd.core.messages import (
    Command,
    DrainReplica,
    Event,
    Forward,
    Grant,
    Hold,
    Note,
    Refuse,
    ReplicaBecameReady,
    ReplicaExited,
    ReplicaSlept,
    ReplicaWoke,
    RequestReleased,
    SleepReplica,
    StartReplica,
    StopReplica,
    WakeReplica,
)
from heliosd.core.names import ReplicaId
from heliosd.core.scheduler import Scheduler
from heliosd.core.timeline import Timeline, as_rows
from heliosd.core.units import format_bytes
from heliosd.state.journal import Journal


def event_entry(journal: Journal, event: Event, scheduler: Scheduler, timeline: Timeline | None = None) -> None:
    """Note what happened, where nothing else tells of it. `timeline`: of the start that has ended."""
    match event:
        case ReplicaBecameReady(replica=replica, measured=measured):
            model = _model(scheduler, replica)
            text = f"{replica} is ready, measured {format_bytes(measured.total_bytes)}"
            found: dict[str, object] = {"measured": asdict(measured)}
            if timeline is not None:
                spans = as_rows(timeline.spans)
                found |= {"phases": timeline.seconds(), "timeline": spans, "total_s": timeline.total_s}
            journal.note("ready", text, replica=replica, model=model, detail=found)
        case ReplicaSlept(replica=replica, level=level, residue=residue, host_bytes=host_bytes):
            text = (
                f"{replica} sleeps at level {level}, keeps {format_bytes(residue.total_bytes)} on each device "
                f"and {format_bytes(host_bytes)} of host memory"
            )
            kept: dict[str, object] = {"level": level, "residue": asdict(residue), "host_bytes": host_bytes}
            journal.note("asleep", text, replica=replica, model=_model(scheduler, replica), detail=kept)
        case ReplicaWoke(replica=replica, measured=measured):
            text = f"{replica} is awake, measured {format_bytes(measured.total_bytes)}"
            awake = {"measured": asdict(measured)}
            journal.note("awake", text, replica=replica, model=_model(scheduler, replica), detail=awake)
        case ReplicaExited(replica=replica, cause=cause):
            text = f"{replica} ended" if cause is None else f"{replica} died: {gist(cause)}"
            detail = {"cause": cause} if cause else {}
            journal.note("exited", text, replica=replica, model=_model(scheduler, replica), detail=detail)
        case RequestReleased(ticket=ticket):
            journal.note("released", "the request is over", ticket=ticket)
        case _:
            pass


def command_entry(journal: Journal, command: Command, scheduler: Scheduler, models: dict[str, str]) -> None:
    """Note a decision with its reason. `models` knows the model of each ticket that waits."""
    match command:
        case Grant(ticket, replica, reason):
            journal.note("grant", reason, ticket=ticket, replica=replica, model=models.get(ticket))
        case Forward(ticket, peer, reason):
            journal.note("forward", reason, ticket=ticket, model=models.get(ticket), detail={"peer": peer})
        case Refuse(ticket, code, reason, retry_after_s, cause):
            why: dict[str, object] = {"code": code, "retry_after_s": retry_after_s, "cause": cause}
            journal.note("refuse", reason, ticket=ticket, model=models.get(ticket), detail=why)
        case Hold(ticket, reason, position, eta_s):
            line: dict[str, object] = {"position": position, "eta_s": eta_s}
            journal.note("hold", reason, ticket=ticket, model=models.get(ticket), detail=line)
        case StartReplica(replica, demand, devices, reason, takes_over):
            what: dict[str, object] = {
                "devices": list(devices),
                "predicted": asdict(demand.per_device),
                "revision": demand.revision,
            }
            text = f"start {demand.model} on {', '.join(devices)}: {reason}"
            if takes_over is not None:
                what["takes_over"] = takes_over
            journal.note("start", text, replica=replica, model=demand.model, detail=what)
        case SleepReplica(replica, level, reason):
            model = _model(scheduler, replica)
            journal.note("sleep", reason, replica=replica, model=model, detail={"level": level})
        case WakeReplica(replica, reason):
            journal.note("wake", reason, replica=replica, model=_model(scheduler, replica))
        case DrainReplica(replica, reason):
            journal.note("drain", reason, replica=replica, model=_model(scheduler, replica))
        case StopReplica(replica, reason):
            journal.note("stop", reason, replica=replica, model=_model(scheduler, replica))
        case Note(subject, reason, warning, kind, replica, figures):
            model = None if subject in scheduler.ledger.devices else subject
            kind = kind or ("warning" if warning else "note")
            journal.note(kind, reason, replica=replica, model=model, detail={"subject": subject, **dict(figures)})
        case _:
            assert_never(command)


def _model(scheduler: Scheduler, replica: str) -> str | None:
    found = scheduler.replicas.get(ReplicaId(replica))
    return found.demand.model if found else None
