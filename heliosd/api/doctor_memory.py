"""Questions of `heliosctl doctor` about memory over time: who leaks, and what will be full."""

from collections.abc import Callable, Sequence

from heliosd.api.parts import Check
from heliosd.core.exhaustion import Exhaustion
from heliosd.core.snapshot import Snapshot
from heliosd.core.units import format_bytes, format_seconds
from heliosd.wire import CheckView

SOON_S = 3600.0
"""What will be full so soon fails the check, if it is a trend that says so."""


def leaks_absent(snapshot: Callable[[], Snapshot]) -> Check:
    """Whether an engine, or heliosd itself, leaks."""

    async def check() -> Sequence[CheckView]:
        seen = snapshot()
        found = []
        for replica in seen.replicas:
            if replica.memory is not None and replica.memory.suspected:
                text = f"{replica.id} of {replica.model} leaks: {replica.memory.why}"
                advice = f"`heliosctl explain {replica.id}` tells what is done about it"
                found.append(CheckView(name="leaks", ok=False, message=text, advice=advice))
        if seen.daemon is not None and seen.daemon.suspected:
            text = f"heliosd leaks: {seen.daemon.why}"
            found.append(CheckView(name="leaks", ok=False, message=text, advice="restart it when that suits"))
        if found:
            return found
        watched = sum(replica.memory is not None for replica in seen.replicas)
        recycled = sum(number for _, _, number in seen.recycles)
        text = f"none in {watched} replicas and heliosd" + (f"; {recycled} were recycled" if recycled else "")
        if seen.daemon is not None and seen.daemon.pss_bytes is not None:
            text += f"; heliosd holds {format_bytes(seen.daemon.pss_bytes)}"
        return [CheckView(name="leaks", ok=True, message=text)]

    return check


def nothing_runs_out(snapshot: Callable[[], Snapshot]) -> Check:
    """Whether a device, a disk or host memory will soon be full."""

    async def check() -> Sequence[CheckView]:
        seen = snapshot()
        all_seen = [(f"device {each.device.id}", each.exhaustion) for each in seen.devices]
        all_seen += [(f"{'disk of the ' if space.name != 'host' else ''}{space.name}", e) for space, e in seen.spaces]
        in_sight = [(name, each) for name, each in all_seen if each.in_sight]
        if not in_sight:
            return [CheckView(name="exhaustion", ok=True, message="nothing is in sight of being full")]
        return [_finding(name, each) for name, each in in_sight]

    return check


def _finding(name: str, seen: Exhaustion) -> CheckView:
    if seen.basis == "full":
        said = f"{name} is full"
    elif seen.basis == "trend":
        said = f"{name} will be full in {format_seconds(seen.after_s)}, as it fills now"
    else:
        said = f"{name} will not hold all that is likely to be asked for within {format_seconds(seen.after_s)}"
    ok = seen.basis == "forecast" or seen.after_s > SOON_S
    advice = None if ok else "find out with `heliosctl gpus -o wide` and `heliosctl du` who fills it"
    return CheckView(name="exhaustion", ok=ok, message=said, advice=advice)
