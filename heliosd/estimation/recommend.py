"""Which cards of a catalogue serve a model as wished, cheapest first; and for the others, what would have to change."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heliosd.core.units import format_bytes
from heliosd.errors import BadRequest
from heliosd.estimation.catalogue import CATALOGUE, PRICES_AS_OF, Gpu, gpu
from heliosd.estimation.fit import RESERVE_RATIO
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model
from heliosd.estimation.nearest import USUAL_COUNTS, Change, Turn, changes
from heliosd.estimation.offers import Impossible, Offer, Offers, Wish
from heliosd.estimation.sizing import MOST_SEQUENCES, largest_model_len, largest_sequences


@dataclass(frozen=True, slots=True)
class Option:
    """Cards that serve the wish, and what else they could."""

    offer: Offer
    longest_context: int
    """Tokens of a request, as many at once as wished."""
    most_concurrency: int
    """Requests at once of the context wished for, at most 1,024; with as many `max_num_seqs`."""
    sentence: str

    @property
    def usd_per_hour(self) -> float:
        return self.offer.usd_per_hour


@dataclass(frozen=True, slots=True)
class Miss:
    """Cards of a kind that do not serve the wish at any of the counts asked for."""

    offer: Offer | Impossible
    """With the most devices asked for."""
    changes: tuple[Change, ...]
    """Single changes that suffice, cheapest kind first."""
    sentence: str

    @property
    def nearest(self) -> Change | None:
        return self.changes[0] if self.changes else None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Everything the catalogue has to say."""

    options: tuple[Option, ...]
    """Cheapest first, then fewest devices, then the longest context."""
    misses: tuple[Miss, ...]
    """Those with a change first, in the order of the change's kind."""


def recommend(
    model: Model,
    *,
    context: int,
    concurrency: int,
    cards: Sequence[Gpu | str] = CATALOGUE,
    counts: Sequence[int] = USUAL_COUNTS,
    launch: Launch | None = None,
    reserve_ratio: float = RESERVE_RATIO,
) -> Recommendation:
    """`concurrency` requests of `context` tokens at once on each of `cards` (or their loose names) in each of `counts`.

    Slices of MIG serve alone, whatever the counts. Raises BadRequest for a wish that no card can serve: nothing asked
    for, more tokens than the model has positions for, a card that nobody knows.
    """
    wish = _checked(model, context, concurrency, counts)
    entries = [gpu(each) if isinstance(each, str) else each for each in cards]
    offers = Offers(model, launch, reserve_ratio)
    fitting: list[Offer] = []
    missed: list[Offer | Impossible] = []
    for entry in entries:
        tried = [offers.at(entry, count, wish) for count in ((1,) if entry.slice_of else sorted(set(counts)))]
        fits = [each for each in tried if isinstance(each, Offer) and each.fit.fits]
        fitting += fits
        if not fits:
            missed.append(next((each for each in reversed(tried) if isinstance(each, Offer)), tried[-1]))
    options = sorted(
        (_option(offers, each, wish) for each in fitting),
        key=lambda each: (each.usd_per_hour, each.offer.devices, -each.longest_context),
    )
    misses = [_miss(each, changes(offers, each, wish, fitting)) for each in missed]
    return Recommendation(tuple(options), tuple(sorted(misses, key=_rank)))


def _checked(model: Model, context: int, concurrency: int, counts: Sequence[int]) -> Wish:
    if context < 1 or concurrency < 1:
        name = "context" if context < 1 else "concurrency"
        raise BadRequest(f"cannot recommend cards for no {name}: ask for at least 1", code="bad_wish", param=name)
    if not counts or min(counts) < 1:
        raise BadRequest("cannot recommend cards without a number of devices", code="bad_wish", param="counts")
    most = model.sizes.positions
    if most and context > most:
        raise BadRequest(
            f"cannot serve {context:,} tokens: the model has positions for {most:,}", code="bad_wish", param="context"
        )
    return Wish(context, concurrency)


def _option(offers: Offers, offer: Offer, wish: Wish) -> Option:
    trials, total, reserve = offers.trials(offer.precision), offer.gpu.usable_bytes, offers.reserve_ratio
    unbounded = replace(offer.launch, max_model_len=None)
    longer = largest_model_len(
        trials.model,
        unbounded,
        total,
        concurrency=wish.concurrency,
        reserve_ratio=reserve,
        least=wish.context,
        trials=trials,
    )
    more = largest_sequences(
        trials.model, offer.launch, total, reserve_ratio=reserve, least=wish.concurrency, trials=trials
    )
    context = max(wish.context, longer.value) if longer is not None else wish.context
    concurrency = max(wish.concurrency, more.value) if more is not None else wish.concurrency
    fit = offer.fit
    most = "at least " if concurrency >= MOST_SEQUENCES else ""
    return Option(
        offer=offer,
        longest_context=context,
        most_concurrency=concurrency,
        sentence=(
            f"{offer.name} ({offer.parallel}, {offer.precision}): {format_bytes(fit.fixed_bytes)} + "
            f"{format_bytes(fit.needed_kv_bytes)} KV of {format_bytes(fit.room_bytes)} on each device; up to "
            f"{context:,} tokens for {wish.concurrency:,} at once, or {most}{concurrency:,} at once of "
            f"{wish.context:,}; about {offer.usd_per_hour:.2f} USD an hour"
            f"{'' if offer.gpu.own_price else f' (assumed, {PRICES_AS_OF})'}"
        ),
    )


def _miss(offer: Offer | Impossible, found: tuple[Change, ...]) -> Miss:
    if isinstance(offer, Impossible):
        what = f"{offer.name}: {offer.reason}"
    else:
        fit = offer.fit
        what = (
            f"{offer.name} ({offer.parallel}): needs {format_bytes(fit.fixed_bytes)} + "
            f"{format_bytes(fit.needed_kv_bytes)} KV on each device, {format_bytes(fit.room_bytes)} there, "
            f"{format_bytes(fit.missing_bytes)} too much"
        )
    return Miss(offer, found, f"{what}; {found[0].sentence if found else 'no single change helps'}")


def _rank(miss: Miss) -> tuple[int, float]:
    turns = list(Turn)
    nearest = miss.nearest
    return (turns.index(nearest.turn), nearest.offer.usd_per_hour) if nearest else (len(turns), 0.0)
