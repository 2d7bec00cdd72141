"""How large a batch, and how long a context, fits into a given room: the largest argument with which an engine starts.

More sequences need more KV cache and, where the sampler copies logits, gigabytes of activation: `max_num_seqs` chosen
for the room instead of the engine's default leaves them to the cache. Searches halve an interval, because more never
takes less; engines add a graph at some batch sizes and drop it at others, so a result may miss the best by a few
sequences, but what is found fits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from heliosd.estimation.fit import RESERVE_RATIO, Fit, judged, longest_requests, on_device, requests_in
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model
from heliosd.estimation.trials import Trials

MOST_SEQUENCES = 1024
"""More than the engine's own default on any card, it need not be."""
MOST_BATCHED_TOKENS = 65_536


@dataclass(frozen=True, slots=True)
class Sized:
    """The largest value that fits, and how."""

    value: int
    launch: Launch
    """With the value in it."""
    fit: Fit


def largest_sequences(
    model: Model,
    launch: Launch,
    device_bytes: int,
    *,
    kv_bytes: int | None = None,
    reserve_ratio: float = RESERVE_RATIO,
    least: int = 1,
    trials: Trials | None = None,
) -> Sized | None:
    """The largest `max_num_seqs`; None when not even `least` fits.

    All of them at once as long as the model is served; with `kv_bytes` given, beside that much KV cache.
    """
    search = _Search(trials or Trials(model), launch, device_bytes, reserve_ratio, kv_bytes)

    def at(sequences: int) -> Sized:
        tokens = launch.max_num_batched_tokens
        step = max(tokens, sequences) if tokens else None
        asked = replace(launch, max_num_seqs=sequences, max_num_batched_tokens=step)
        return search.at(sequences, asked, 1 if kv_bytes is not None else sequences)

    def held(tried: Sized) -> int:
        if kv_bytes is not None:
            return MOST_SEQUENCES
        return requests_in(tried.fit.trial.cache, tried.fit.model_len, tried.fit.kv_bytes)

    return _largest(least, MOST_SEQUENCES, at, held)


def largest_batched_tokens(
    model: Model,
    launch: Launch,
    device_bytes: int,
    *,
    concurrency: int = 1,
    kv_bytes: int | None = None,
    reserve_ratio: float = RESERVE_RATIO,
    trials: Trials | None = None,
) -> Sized | None:
    """The largest `max_num_batched_tokens` beside the KV cache for `concurrency` requests, or beside `kv_bytes`.

    At least one for each sequence; None when not even that fits.
    """
    search = _Search(trials or Trials(model), launch, device_bytes, reserve_ratio, kv_bytes)
    least = max(launch.max_num_seqs or concurrency, 1)

    def at(tokens: int) -> Sized:
        return search.at(tokens, replace(launch, max_num_batched_tokens=tokens), concurrency)

    return _largest(least, max(least, MOST_BATCHED_TOKENS), at, lambda _: MOST_BATCHED_TOKENS)


def largest_model_len(
    model: Model,
    launch: Launch,
    device_bytes: int,
    *,
    concurrency: int = 1,
    kv_bytes: int | None = None,
    reserve_ratio: float = RESERVE_RATIO,
    step: int = 1,
    least: int = 1,
    trials: Trials | None = None,
) -> Sized | None:
    """The largest `max_model_len`, a multiple of `step`, with `concurrency` requests of it at once.

    At most the launch's own where it has one, else what the model has positions for; None when not even `least` fits.
    """
    asked = trials or Trials(model)
    search = _Search(asked, launch, device_bytes, reserve_ratio, kv_bytes)
    most = launch.max_model_len or asked.at(on_device(launch, device_bytes)).most_tokens

    def at(steps: int) -> Sized:
        length = min(steps * step, most)
        return search.at(length, replace(launch, max_model_len=length), concurrency)

    def held(tried: Sized) -> int:
        if kv_bytes is not None:
            return -(-most // step)
        return longest_requests(tried.fit.trial.cache, tried.fit.kv_bytes, most, concurrency) // step

    return _largest(-(-least // step), -(-most // step), at, held)


class _Search:
    """Fits of one model in one room."""

    __slots__ = ("_device_bytes", "_kv_bytes", "_launch", "_reserve", "_trials")

    def __init__(self, trials: Trials, launch: Launch, device_bytes: int, reserve: float, kv_bytes: int | None) -> None:
        self._trials = trials
        self._launch = launch
        self._device_bytes = device_bytes
        self._reserve = reserve
        self._kv_bytes = kv_bytes

    def at(self, value: int, launch: Launch, concurrency: int) -> Sized:
        trial = self._trials.at(on_device(launch, self._device_bytes))
        found = judged(
            trial, self._device_bytes, reserve_ratio=self._reserve, kv_bytes=self._kv_bytes, concurrency=concurrency
        )
        return Sized(value, launch, found)


def _largest(low: int, high: int, at: Callable[[int], Sized], held: Callable[[Sized], int]) -> Sized | None:
    """The last in `low` .. `high` that fits; None when `low` does not.

    `held`: what the KV bytes of a try would hold. More leaves fewer KV bytes, so where a try fits nothing above its
    `held` does, and where it does not fit its `held` should: the two ends meet after a few tries.
    """
    best = at(low)
    if not best.fit.fits:
        return None
    high = min(high, held(best))
    hint = high
    while high > low:
        value = hint if low < hint <= high else (low + high + 1) // 2
        tried = at(value)
        if tried.fit.fits:
            low, best = value, tried
            high = hint = min(high, held(tried))
        else:
            high, hint = value - 1, held(tried)
    return best
