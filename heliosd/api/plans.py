"""How a dry run is told: the steps with their bytes, seconds and reasons, and the sums."""

from collections.abc import Iterable

from heliosd.core.costs import Cost
from heliosd.core.lifecycle import State
from heliosd.core.placement import Fits
from heliosd.core.units import format_bytes, format_seconds
from heliosd.node.operating import Start
from heliosd.wire import ChangePlan, ChangeStep


def plan_of(summary: str, steps: Iterable[ChangeStep] = ()) -> ChangePlan:
    """The plan with these steps."""
    steps = list(steps)
    known = [step.seconds for step in steps if step.seconds is not None]
    return ChangePlan(
        summary=summary,
        steps=steps,
        frees_bytes=sum(step.frees_bytes for step in steps),
        takes_bytes=sum(step.takes_bytes for step in steps),
        seconds=sum(known) if known else None,
    )


def write_step(subject: str, reason: str, *, what: str = "write", **more: int) -> ChangeStep:
    """Something noted in the state database, or taken out of it."""
    return ChangeStep(what=what, subject=subject, reason=reason, seconds=0.0, **more)


def leave_step(cost: Cost, *, sleep: bool) -> ChangeStep:
    """A replica stops or falls asleep: what that frees, and costs to have back."""
    frees = cost.held_bytes - (cost.asleep_bytes if sleep else 0)
    back_s = cost.wake_s if sleep else cost.reload_s
    return ChangeStep(
        what="sleep" if sleep else "stop",
        subject=cost.replica,
        devices=list(cost.devices),
        frees_bytes=max(0, frees),
        seconds=cost.finish_s,
        costs_s=back_s,
        reason=_leaving(cost, frees, back_s, sleep=sleep),
    )


def _leaving(cost: Cost, frees_bytes: int, back_s: float, *, sleep: bool) -> str:
    words = [f"{cost.model} holds {format_bytes(cost.held_bytes)} on {', '.join(cost.devices)}"]
    if sleep:
        words.append(f"{format_bytes(cost.asleep_bytes)} stay while it sleeps, {format_bytes(frees_bytes)} are freed")
    if cost.leases:
        words.append(f"{cost.leases} requests are finished first, in about {format_seconds(cost.finish_s)}")
    if cost.state is not State.READY:
        words.append(f"it is {cost.state}")
    words.append(
        f"to have it back takes about {format_seconds(back_s)}, and it is asked for soon with {cost.reuse:.0%}"
    )
    if cost.pinned:
        words.append("it is pinned, so it is started again as soon as there is room")
    return "; ".join(words)


def start_step(start: Start) -> ChangeStep:
    """A replica more."""
    at = start.at
    return ChangeStep(
        what="wake" if start.wakes else "start" if isinstance(at, Fits) else "wait",
        subject=start.wakes or start.demand.model,
        devices=list(at.devices) if isinstance(at, Fits) else [],
        takes_bytes=start.takes_bytes,
        seconds=start.seconds,
        reason=at.reason,
    )
