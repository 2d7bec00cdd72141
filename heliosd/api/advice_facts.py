"""Gathers what advice rests on: from the history, the store, the node as it is now, and estimates of what could be."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from heliosd.api.estimate import subject_named
from heliosd.api.estimate_plan import fitted
from heliosd.api.estimate_target import Target, device_like, target_here
from heliosd.api.parts import History, Parts, Stored
from heliosd.core.advice import long_context, many_sequences
from heliosd.core.advice.facts import BudgetFacts, Change, DeviceFacts, Facts, ModelFacts, PrefetchFacts
from heliosd.core.hours import HOST_TIER, SLEEPERS, PlaceHour
from heliosd.core.retention import Tier
from heliosd.core.snapshot import DeviceAccount, Snapshot
from heliosd.core.units import GiB
from heliosd.core.usage import usual_load_s
from heliosd.core.week import HOUR_S, hour_of
from heliosd.errors import HeliosError
from heliosd.estimation.catalogue import SLICES
from heliosd.estimation.model import Model
from heliosd.estimation.precision import Precision, Support, means, precision_of
from heliosd.lease import Judgement
from heliosd.state.hours import Asked
from heliosd.wire import EstimateRequest

WINDOW_HOURS = 30 * 24
MOST_JUDGED = 100
"""Models whose settings are estimated anew, those that were wanted in most hours first; of others their use tells."""
NARROWER = (Precision.FP8, Precision.INT8)


@dataclass(frozen=True, slots=True)
class _Store:
    """What is the same for all models."""

    snapshot: Snapshot
    asked: Mapping[str, Asked]
    asked_at: Mapping[str, float]
    pinned: Mapping[str, int]
    pinned_at: Mapping[str, float]
    frees: Mapping[str, int]
    bases: frozenset[str]
    disk: bool
    wishes: frozenset[str]
    target: Target | None
    now: float


async def gather(parts: Parts, history: History, gib_hour_price: float | None) -> Facts:
    """Everything the rules ask for. Raises no HeliosError for a single model: it is left out of what is estimated."""
    now = time.time()
    since = hour_of(now) - WINDOW_HOURS
    snapshot = parts.node.snapshot()
    places = await history.hours.places(since)
    models = await _models(parts, history, snapshot, now)
    devices = tuple(_device(each, places) for each in snapshot.devices)
    spare = [
        room - max((row.peak_bytes for row in places if row.place == each.device.id), default=room)
        for each in snapshot.devices
        for room in [each.device.capacity_bytes - each.safety_bytes]
    ]
    loads = [each.load_s for each in models if each.requests]
    return Facts(
        hours=await history.hours.observed(since),
        window_hours=WINDOW_HOURS,
        models=models,
        devices=devices,
        budgets=_budgets(places),
        prefetch=PrefetchFacts(
            enabled=history.prefetching(),
            hits=snapshot.preloads.hits,
            misses=snapshot.preloads.misses,
            wasted_byte_s=snapshot.preloads.wasted_byte_s,
            hours=(now - parts.identity.started_at) / HOUR_S,
            load_s=sum(loads) / len(loads) if loads else 0.0,
        ),
        free_bytes=max([0, *spare]),
        gib_hour_price=gib_hour_price,
    )


def list_price(snapshot: Snapshot) -> float | None:
    """USD of a GiB-hour of this node's devices together, by the catalogue; None: it knows none of them."""
    known = [device_like(each.device).gpu for each in snapshot.devices]
    total_bytes = sum(each.usable_bytes for each in known if each.usd_per_hour)
    return sum(each.usd_per_hour for each in known) / (total_bytes / GiB) if total_bytes else None


async def _models(parts: Parts, history: History, snapshot: Snapshot, now: float) -> tuple[ModelFacts, ...]:
    stored = await parts.store.models()
    wishes = await parts.tiers.wishes() if parts.tiers else {}
    store = _Store(
        snapshot=snapshot,
        asked=await history.hours.asked(hour_of(now) - WINDOW_HOURS),
        asked_at=await history.asked_at(),
        pinned=await parts.node.wanted.pinned(),
        pinned_at=await history.pinned_at(),
        frees={each.ref: each.frees_bytes for each in (await parts.store.usage()).models},
        bases=frozenset(str(each.adapter.base) for each in stored if each.adapter),
        disk=parts.tiers is not None and any(each.tier is Tier.DISK for each in await parts.tiers.status()),
        wishes=frozenset(wishes),
        target=target_here(each.device for each in snapshot.devices),
        now=now,
    )
    plain = [_plain(each, parts, store) for each in stored if each.of is None]
    judged = sorted((each for each in plain if each.requests or each.pinned), key=lambda each: -each.requests)
    better = {each.model: await _judged(each, parts, store) for each in judged[:MOST_JUDGED]}
    return tuple(better.get(each.model, each) for each in plain)


def _plain(model: Stored, parts: Parts, store: _Store) -> ModelFacts:
    """What needs no estimate."""
    name = str(model.ref)
    asked, own = store.asked.get(name), parts.settings(model.ref)
    last = [store.asked_at[name]] if name in store.asked_at else []
    if asked and asked.requests:
        last.append(asked.last_hour * HOUR_S)
    least, most = int(own.get("min_replicas", 0)), int(own.get("max_replicas", 1))
    weights_bytes = model.profile.weights_bytes
    facts = parts.node.facts(name).appetite
    in_store = parts.tiers.tier_of(model.manifest) != Tier.DISK if parts.tiers else True
    return ModelFacts(
        model=name,
        stored_bytes=store.frees.get(name, 0),
        age_hours=max(0.0, store.now - model.created_at) / HOUR_S,
        requests=asked.requests if asked else 0,
        silent_hours=max(0.0, store.now - max(last)) / HOUR_S if last else None,
        most_at_once=asked.most_at_once if asked else 0,
        longest_tokens=asked.longest_tokens if asked else 0,
        load_s=facts.reload_s if facts and facts.reload_s else usual_load_s(weights_bytes),
        pinned=store.pinned.get(name, 0),
        pin_hours=max(0.0, store.now - store.pinned_at.get(name, store.now)) / HOUR_S,
        min_replicas=least,
        max_replicas=max(least, most),
        most_replicas=asked.most_replicas if asked else 0,
        serves_others=model.adapter is not None or name in store.bases,
        disk_tier=store.disk and in_store and name not in store.wishes,
    )


async def _judged(each: ModelFacts, parts: Parts, store: _Store) -> ModelFacts:
    """With what it takes as it is served, and what it would take with other settings."""
    stored = await parts.store.by_name(each.model)
    if stored is None:
        return each
    try:
        now = await parts.node.judge(stored.ref)
        found = replace(
            each,
            need_bytes=_bytes(now),
            max_model_len=now.max_model_len,
            max_num_seqs=now.max_num_seqs,
            texts_only=_texts_only(now.read),
        )
        if (length := long_context.proposed(found)) is not None:
            shorter = await parts.node.judge(stored.ref, max_model_len=length)
            found = replace(found, shorter=Change(length, _bytes(shorter)))
        if (fewer := many_sequences.proposed(found)) is not None:
            narrower = await parts.node.judge(stored.ref, max_num_seqs=fewer)
            found = replace(found, narrower=Change(fewer, _bytes(narrower)))
        return replace(found, quantized=await _quantized(found, now, parts, store))
    except HeliosError:  # what cannot be estimated is judged by its use alone
        return each


async def _quantized(each: ModelFacts, now: Judgement, parts: Parts, store: _Store) -> Change | None:
    target, model = store.target, now.read
    if target is None or model is None or model.layout is None or each.serves_others:
        return None
    as_is = precision_of(model)
    chosen = next(
        (one for one in NARROWER if one.bits < as_is.bits and target.gpu.support(one) is Support.NATIVE), None
    )
    if chosen is None:
        return None
    asked: dict[str, Any] = {"model": each.model, "context": now.max_model_len}
    ranks = now.device_count // now.pipeline_parallel
    asked |= {"tensor_parallel": ranks, "pipeline_parallel": now.pipeline_parallel}
    subject, _ = await subject_named(EstimateRequest(model=each.model), parts)
    before = await parts.estimator.run(lambda: fitted(EstimateRequest(**asked), subject, target))
    after = await parts.estimator.run(lambda: fitted(EstimateRequest(**asked, precision=chosen.value), subject, target))
    freed = (before.needed_bytes - after.needed_bytes) * now.device_count
    return Change(chosen.value, max(0, each.need_bytes - freed), means(model, chosen).value) if freed > 0 else None


def _bytes(judgement: Judgement) -> int:
    return judgement.per_device.total_bytes * judgement.device_count


def _texts_only(model: Model | None) -> bool:
    return model is not None and model.layout is not None and not model.layout.towers


def _device(account: DeviceAccount, places: tuple[PlaceHour, ...]) -> DeviceFacts:
    device, gpu = account.device, device_like(account.device).gpu
    card = gpu.slice_of or gpu.name
    peak = max((row.peak_bytes for row in places if row.place == device.id), default=0)
    slices = {each.name.partition(" MIG ")[2]: each.usable_bytes for each in SLICES if each.slice_of == card}
    return DeviceFacts(device.id, device.name, device.capacity_bytes, peak, slices, gpu.slice_of)


def _budgets(places: tuple[PlaceHour, ...]) -> tuple[BudgetFacts, ...]:
    found = []
    for place, key, what in (
        (SLEEPERS, "pool.host_memory", "sleeping models"),
        (HOST_TIER, "store.host_memory", "models that are kept ready to load"),
    ):
        rows = [row for row in places if row.place == place]
        if rows:
            found.append(BudgetFacts(key, what, rows[-1].room_bytes, max(row.peak_bytes for row in rows)))
    return tuple(found)
