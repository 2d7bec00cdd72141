"""Whether a model fits on devices of some memory, what is left for its KV cache, and what that holds.

Each device keeps a reserve; of the rest, a stage's weights, activation, graphs and libraries with the margin of their
account come first, and the KV cache gets what is left. The engine is given one number of KV bytes for all its ranks, so
the tightest stage decides for all.
"""

from dataclasses import dataclass, replace

from heliosd.core.units import format_bytes
from heliosd.estimation.account import DeviceAccount, Term
from heliosd.estimation.kv_pages import KvPages
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model
from heliosd.estimation.trials import Trial, Trials

RESERVE_RATIO = 0.02
"""Of a device's memory, left alone: other contexts, fragmentation."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict on one launch; all bytes are of one device. What is derived is calculated when it is asked for."""

    trial: Trial
    device_bytes: int
    room_bytes: int
    """The device less the reserve."""
    fixed_bytes: int
    """Everything but the KV cache, its margin included, on the stage that needs most."""
    kv_bytes: int
    """For the KV cache: as asked for, or what is left."""
    needed_kv_bytes: int
    """For the concurrency asked for, each request as long as the model is served."""
    given: bool
    """Whether `kv_bytes` were asked for."""

    @property
    def fits(self) -> bool:
        return self.fixed_bytes + self.kv_bytes <= self.room_bytes and self.kv_bytes >= self.needed_kv_bytes

    @property
    def needed_bytes(self) -> int:
        return self.fixed_bytes + self.needed_kv_bytes

    @property
    def missing_bytes(self) -> int:
        """By how much a device is too small for what is needed; 0 when it is not."""
        return max(0, self.needed_bytes - self.room_bytes)

    @property
    def stages(self) -> tuple[DeviceAccount, ...]:
        """With the KV cache in each."""
        term = Term(self.kv_bytes, self.kv_bytes, self.kv_bytes, "given to the engine, exact")
        return tuple(replace(each, kv_cache=term) for each in self.trial.accounts)

    @property
    def model_len(self) -> int:
        return self.trial.resolved.model_len

    @property
    def max_num_seqs(self) -> int:
        return self.trial.resolved.defaults.max_num_seqs

    @property
    def tokens(self) -> int:
        """That the cache holds, counted as the engine prints them."""
        return self.trial.cache.tokens_in(self.kv_bytes)

    @property
    def longest_context(self) -> int:
        """Of a request alone, on this launch's account, at most what the model has positions for."""
        return longest_requests(self.trial.cache, self.kv_bytes, self.trial.most_tokens)

    @property
    def concurrency(self) -> int:
        """Requests of the model's length at once, at most `max_num_seqs`."""
        return self.requests_of(self.model_len)

    def requests_of(self, length: int) -> int:
        """How many requests of `length` tokens the cache holds at once, at most `max_num_seqs`."""
        return min(requests_in(self.trial.cache, length, self.kv_bytes), self.max_num_seqs)

    @property
    def verdict(self) -> str:
        """`needs 52.1 GiB (0.4 GiB of it margin) + 10.0 GiB KV, 77.6 GiB there (79.2 GiB less the reserve): 15.5 GiB
        left`. The KV bytes are those given, else those needed."""
        widest = max(self.trial.accounts, key=lambda each: each.booked_bytes)
        kv = self.kv_bytes if self.given else self.needed_kv_bytes
        left = self.room_bytes - self.fixed_bytes - kv
        text = (
            f"needs {format_bytes(self.fixed_bytes)} ({format_bytes(widest.margin_bytes)} of it margin) + "
            f"{format_bytes(kv)} KV, {format_bytes(self.room_bytes)} there ({format_bytes(self.device_bytes)} less the "
            f"reserve): {format_bytes(abs(left))} {'left' if left >= 0 else 'too much'}"
        )
        if self.kv_bytes < self.needed_kv_bytes and self.given:
            text += f"; the KV bytes given are fewer than the {format_bytes(self.needed_kv_bytes)} that requests need"
        return text


def fit(
    model: Model,
    launch: Launch,
    device_bytes: int,
    *,
    reserve_ratio: float = RESERVE_RATIO,
    kv_bytes: int | None = None,
    concurrency: int = 1,
) -> Fit:
    """Whether each device of `device_bytes` takes its part of `model`.

    `kv_bytes`: given to the engine; None: what is left. It fits when that holds `concurrency` requests of the length
    that the model is served with. A launch that names no device gets its defaults by `device_bytes`.
    """
    return judged(
        Trials(model).at(on_device(launch, device_bytes)),
        device_bytes,
        reserve_ratio=reserve_ratio,
        kv_bytes=kv_bytes,
        concurrency=concurrency,
    )


def on_device(launch: Launch, device_bytes: int) -> Launch:
    """The launch, told of its device's memory unless it knows."""
    return launch if launch.device_bytes is not None else replace(launch, device_bytes=device_bytes)


def judged(
    trial: Trial,
    device_bytes: int,
    *,
    reserve_ratio: float = RESERVE_RATIO,
    kv_bytes: int | None = None,
    concurrency: int = 1,
) -> Fit:
    """`fit` of a trial that has been made."""
    room = room_of(device_bytes, reserve_ratio)
    fixed = trial.booked_bytes
    return Fit(
        trial=trial,
        device_bytes=device_bytes,
        room_bytes=room,
        fixed_bytes=fixed,
        kv_bytes=max(0, room - fixed) if kv_bytes is None else kv_bytes,
        needed_kv_bytes=trial.cache.bytes_for_requests(concurrency, trial.resolved.model_len),
        given=kv_bytes is not None,
    )


def room_of(device_bytes: int, reserve_ratio: float = RESERVE_RATIO) -> int:
    """What an engine may take of a device."""
    return int(device_bytes * (1 - reserve_ratio))


def requests_in(cache: KvPages, length: int, kv_bytes: int) -> int:
    """Requests of `length` tokens that `kv_bytes` on each device hold at once, beside the engine's own block."""
    needed = cache.request_blocks(length)
    return max(0, cache.blocks(kv_bytes) - 1) // needed if needed else UNBOUNDED


def longest_requests(cache: KvPages, kv_bytes: int, most: int, count: int = 1) -> int:
    """The longest that `count` requests at once, of at most `most` tokens, can be in `kv_bytes`; 0 when none fits."""
    blocks = max(0, cache.blocks(kv_bytes) - 1) // count
    if cache.request_blocks(most) <= blocks:
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cache.request_blocks(middle) <= blocks else (low, middle)
    return low


UNBOUNDED = 1 << 31
"""Requests at once of a model that keeps nothing of them."""
