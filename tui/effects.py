"""What a deed would free and cost, from the daemon's own estimate and explanation. Pure but for asking."""

from collections.abc import Iterator, Sequence

from heliosctl.client import quoted
from heliosctl.exits import Failure
from heliosd.core.units import format_bytes, format_seconds
from heliosd.wire import AppetiteView, Explanation, ModelStory, ReplicaStory, WorthView
from tui.ask import Ask
from tui.deeds import Verb

MOST_EXPLAINED = 8
"""A device may have hundreds of replicas; no one reads more."""


async def effects(ask: Ask, verb: Verb, subjects: Sequence[str]) -> list[str]:
    """Lines for the person who is to confirm. What cannot be told is said, and hinders nothing."""
    lines: list[str] = []
    for subject in subjects[:MOST_EXPLAINED]:
        try:
            told = Explanation.model_validate(await ask.get(f"/helios/v1/explain/{quoted(subject)}"))
        except Failure as failure:
            lines.append(f"{subject}: what it would do is not known: {failure.message}")
            continue
        prefix = f"{subject}: " if len(subjects) > 1 else ""
        lines += [prefix + line for line in effect(verb, told)]
    if len(subjects) > MOST_EXPLAINED:
        lines.append(f"and {len(subjects) - MOST_EXPLAINED} more")
    return lines


def effect(verb: Verb, told: Explanation) -> list[str]:
    """What comes of it for one subject."""
    if told.replica is not None:
        return list(_of_replica(verb, told.replica))
    if told.model is not None:
        return list(_of_model(verb, told.model))
    return ["what it would do is not known: the daemon tells nothing about it"]


def _of_replica(verb: Verb, it: ReplicaStory) -> Iterator[str]:
    running = it.running
    if running is None:
        yield "it has ended already"
        return
    if verb in ("stop", "drain", "sleep") and running.leases:
        yield f"its {running.leases} requests are finished first"
    if verb in ("stop", "drain", "sleep"):
        yield from _freed(it.worth, len(running.devices), verb)
        yield from _asked(it.appetite)
        if running.pinned and verb != "sleep":
            yield "it is pinned: another is started as soon as there is room"
    if verb == "wake":
        yield f"takes {format_bytes(running.predicted.total_bytes)} on each of {_devices(len(running.devices))}"
        if it.appetite is not None and it.appetite.wake_s is not None:
            yield f"waking took {format_seconds(it.appetite.wake_s)} last time"


def _of_model(verb: Verb, it: ModelStory) -> Iterator[str]:
    if verb in ("load", "wake", "pin") and it.estimate is not None:
        need = it.estimate
        yield (
            f"takes {format_bytes(need.per_device.total_bytes)} on each of {_devices(need.device_count)} "
            f"({format_bytes(need.per_device.weights_bytes)} weights, "
            f"{format_bytes(need.per_device.kv_cache_bytes)} KV cache)"
        )
        yield f"{need.verdict.replace('_', ' ')}: {need.reason}"
    if verb in ("load", "wake", "pin") and it.appetite is not None and it.appetite.reload_s is not None:
        yield f"a start took {format_seconds(it.appetite.reload_s)} last time"
    if verb == "pin":
        yield "it is never sent away for others, and the pin outlives a restart"
    if verb == "unpin":
        yield "what runs of it may be sent away for others, or when it was idle for its keep-alive"
    if verb in ("stop", "drain", "sleep"):
        for replica in it.replicas:
            held = replica.measured or replica.predicted
            kept = " less what a sleeper keeps" if verb == "sleep" else ""
            yield (
                f"{replica.id}: frees {format_bytes(held.total_bytes)}{kept} on each of "
                f"{_devices(len(replica.devices))}, {replica.leases} requests are finished first"
            )
        if not it.replicas:
            yield "nothing of it runs"
    if verb != "load":
        yield from _asked(it.appetite)


def _freed(worth: WorthView | None, devices: int, verb: Verb) -> Iterator[str]:
    if worth is None:
        return
    if verb == "sleep" or not worth.sleeps:
        yield f"frees {format_bytes(worth.frees_bytes)} on each of {_devices(devices)}"
    else:
        freed = f"frees {format_bytes(worth.frees_bytes)} on each of {_devices(devices)}"
        yield f"{freed}, as sleep would, and what a sleeper keeps"
    yield (
        f"costs {format_seconds(worth.loss_s)} of waiting, as forecast: who asks for it next waits "
        f"{format_seconds(worth.slower_s)} longer"
    )
    if worth.rank is not None:
        yield f"it would be number {worth.rank} of {worth.of} to make room by itself"
    elif worth.protected:
        yield f"by itself it would not go: {worth.protected}"


def _asked(it: AppetiteView | None) -> Iterator[str]:
    if it is None:
        yield "nobody has asked for it so far"
        return
    yield (
        f"asked for {it.asked_per_minute:.2g} times a minute: {it.reuse_ratio:.0%} that somebody asks within "
        f"{format_seconds(it.horizon_s)}; {it.waiting} wait for it now"
    )


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
