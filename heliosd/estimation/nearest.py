"""What to change when a model does not fit: each single change that suffices, the cheapest kind first.

Cheap is what costs the operator least to accept: a shorter context, then fewer requests at once, then a KV cache in
fp8, then narrower weights, then more cards, then others. Every change is tried by the same account as the launch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from heliosd.core.units import format_bytes
from heliosd.estimation.catalogue import CATALOGUE, Gpu
from heliosd.estimation.fit import RESERVE_RATIO, Fit
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model
from heliosd.estimation.offers import Impossible, Offer, Offers, Wish
from heliosd.estimation.precision import Means, Precision, Support, means, possible
from heliosd.estimation.sizing import largest_model_len, largest_sequences


class Turn(StrEnum):
    """Kinds of change, cheapest first."""

    SHORTER_CONTEXT = "shorter context"
    FEWER_SEQUENCES = "fewer sequences"
    FP8_CACHE = "fp8 KV cache"
    LOWER_PRECISION = "lower precision"
    MORE_DEVICES = "more devices"
    OTHER_CARD = "another card"


@dataclass(frozen=True, slots=True)
class Change:
    """One change that makes it fit."""

    turn: Turn
    offer: Offer
    """With the change made."""
    before_bytes: int | None
    """Of one device, everything with the KV cache wished for; None where no engine would have started."""
    after_bytes: int
    sentence: str


LEAST_CONTEXT = 1024
"""A shorter context than this is no help to anybody."""
CONTEXT_STEP = 256
USUAL_COUNTS = (1, 2, 4, 8)


def nearest_changes(
    model: Model,
    gpu: Gpu,
    devices: int,
    *,
    context: int,
    concurrency: int,
    others: Sequence[Gpu] = CATALOGUE,
    counts: Sequence[int] = USUAL_COUNTS,
    launch: Launch | None = None,
    reserve_ratio: float = RESERVE_RATIO,
) -> tuple[Change, ...]:
    """Every single change with which `devices` cards serve `model`, the cheapest kind first; empty when they do anyway.

    More devices are looked for among `counts`, other cards among `others` with as many devices.
    """
    offers = Offers(model, launch, reserve_ratio)
    wish = Wish(context, concurrency)
    before = offers.at(gpu, devices, wish)
    if isinstance(before, Offer) and before.fit.fits:
        return ()
    rivals = (offers.at(each, devices, wish) for each in others if each.name != gpu.name)
    return changes(offers, before, wish, rivals, counts)


def changes(
    offers: Offers,
    before: Offer | Impossible,
    wish: Wish,
    rivals: Iterable[Offer | Impossible],
    counts: Sequence[int] = USUAL_COUNTS,
) -> tuple[Change, ...]:
    """`nearest_changes` from offers that have been made; `rivals`: the same wish on other cards."""
    found: list[Change] = []
    if isinstance(before, Offer):
        found += _within(offers, before, wish)
    found += _narrower(offers, before, wish)
    found += _more(offers, before, wish, counts)
    found += _other(before, rivals)
    return tuple(found)


def _within(offers: Offers, before: Offer, wish: Wish) -> Iterator[Change]:
    """What the operator can give up on the same cards with the same weights."""
    if wish.context > LEAST_CONTEXT:
        yield from _shorter(offers, before, wish)
    if wish.concurrency > 1:
        yield from _fewer(offers, before, wish)
    if before.gpu.fp8_cache and wish.kv_cache_dtype == "auto":
        half = offers.at(before.gpu, before.devices, replace(wish, kv_cache_dtype="fp8"))
        if isinstance(half, Offer) and half.fit.fits:
            yield _change(Turn.FP8_CACHE, before, half, "with the KV cache in fp8")


def _shorter(offers: Offers, before: Offer, wish: Wish) -> Iterator[Change]:
    trials = offers.trials(before.precision)
    found = largest_model_len(
        trials.model,
        before.launch,
        before.gpu.usable_bytes,
        concurrency=wish.concurrency,
        reserve_ratio=offers.reserve_ratio,
        step=CONTEXT_STEP,
        least=LEAST_CONTEXT,
        trials=trials,
    )
    if found is not None:
        offer = replace(before, launch=found.launch, fit=found.fit)
        what = f"with {found.value:,} tokens of context instead of {wish.context:,}"
        yield _change(Turn.SHORTER_CONTEXT, before, offer, what)


def _fewer(offers: Offers, before: Offer, wish: Wish) -> Iterator[Change]:
    trials = offers.trials(before.precision)
    found = largest_sequences(
        trials.model, before.launch, before.gpu.usable_bytes, reserve_ratio=offers.reserve_ratio, trials=trials
    )
    if found is not None:
        offer = replace(before, launch=found.launch, fit=found.fit)
        what = f"with {found.value:,} at once instead of {wish.concurrency:,}"
        yield _change(Turn.FEWER_SEQUENCES, before, offer, what)


def _narrower(offers: Offers, before: Offer | Impossible, wish: Wish) -> Iterator[Change]:
    gpu = before.gpu
    for precision in narrower(offers.model, gpu):
        offer = offers.at(gpu, before.devices, replace(wish, precision=precision))
        if isinstance(offer, Offer) and offer.fit.fits:
            how = means(offers.model, precision)
            note = " (quantized while loading)" if how is Means.ONLINE else f" ({how})" if how is Means.AHEAD else ""
            yield _change(
                Turn.LOWER_PRECISION, before, offer, f"with {precision} weights instead of {offers.own}{note}"
            )
            return


def narrower(model: Model, gpu: Gpu) -> tuple[Precision, ...]:
    """Precisions of fewer bits that a card runs, widest first; of as many bits, what it multiplies in first."""
    candidates = [each for each in possible(model) if means(model, each) in (Means.ONLINE, Means.AHEAD)]
    ranked = sorted(candidates, key=lambda each: (-each.bits, gpu.support(each) is not Support.NATIVE))
    return tuple(each for each in ranked if gpu.support(each) is not Support.NONE)


def _more(offers: Offers, before: Offer | Impossible, wish: Wish, counts: Sequence[int]) -> Iterator[Change]:
    for count in sorted(counts):
        if count <= before.devices:
            continue
        offer = offers.at(before.gpu, count, wish)
        if isinstance(offer, Offer) and offer.fit.fits:
            yield _change(Turn.MORE_DEVICES, before, offer, f"on {offer.name} ({offer.parallel})")
            return


def _other(before: Offer | Impossible, rivals: Iterable[Offer | Impossible]) -> Iterator[Change]:
    others = (each for each in rivals if isinstance(each, Offer) and each.gpu.name != before.gpu.name)
    fitting = [each for each in others if each.fit.fits]
    if fitting:
        best = min(fitting, key=lambda each: (each.usd_per_hour, each.devices, each.gpu.usable_bytes))
        yield _change(Turn.OTHER_CARD, before, best, f"on {best.name} at about {best.usd_per_hour:.2f} USD an hour")


def _change(turn: Turn, before: Offer | Impossible, after: Offer, what: str) -> Change:
    needed = before.fit.needed_bytes if isinstance(before, Offer) else None
    return Change(
        turn=turn,
        offer=after,
        before_bytes=needed,
        after_bytes=after.fit.needed_bytes,
        sentence=f"fits {what}: {_sum(after.fit)} of {format_bytes(after.fit.room_bytes)}{_instead(before)}",
    )


def _sum(fit: Fit) -> str:
    return f"{format_bytes(fit.fixed_bytes)} + {format_bytes(fit.needed_kv_bytes)} KV"


def _instead(before: Offer | Impossible) -> str:
    if isinstance(before, Impossible):
        return f"; as it is, {before.reason}"
    return f", instead of {_sum(before.fit)} of {format_bytes(before.fit.room_bytes)}"
