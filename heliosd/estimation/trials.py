"""Many launches of one model, each part of an account calculated once.

Weights take longest and depend on few arguments; cards of a class resolve alike. A search over cards, lengths and
sequences therefore asks a `Trials`, which remembers; what it answers is `account` and `cache_of`, to the byte.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter

from heliosd.estimation.account import DeviceAccount, Term, account
from heliosd.estimation.cache import cache_launch
from heliosd.estimation.kv_launch import CacheLaunch
from heliosd.estimation.kv_pages import KvPages, kv_pages
from heliosd.estimation.kv_specs import kv_specs
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model
from heliosd.estimation.resolve import Resolved, resolve
from heliosd.estimation.stored_tensors import StoredWeights

UNTOLD_TOKENS = 1 << 20
"""Longest request of a model whose configuration names no positions: states forget nothing and grow not."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A launch with its account, KV bytes still 0, and its cache."""

    launch: Launch
    """As asked for."""
    resolved: Resolved
    accounts: tuple[DeviceAccount, ...]
    cache: KvPages
    most_tokens: int
    """That the model has positions for, or is served with all the same."""

    @property
    def booked_bytes(self) -> int:
        """Everything but the KV cache with its margin, on the stage that needs most."""
        return max(each.booked_bytes for each in self.accounts)


class Trials:
    """Of one model; grows with what is asked, so keep it for one question."""

    __slots__ = ("_accounts", "_caches", "_stored", "_weights", "model")

    def __init__(self, model: Model, stored: StoredWeights | None = None) -> None:
        """`stored`: what the headers of its files say, where they were read."""
        self.model = model
        self._stored = stored
        self._weights: dict[object, tuple[Term, ...]] = {}
        self._accounts: dict[object, tuple[DeviceAccount, ...]] = {}
        self._caches: dict[CacheLaunch, KvPages] = {}

    def at(self, launch: Launch) -> Trial:
        """Raises BadRequest where the model's configuration lacks what its cache needs."""
        resolved = resolve(self.model, launch)
        asked = cache_launch(self.model, launch, resolved)
        cache = self._caches.get(asked)
        if cache is None:
            cache = self._caches[asked] = kv_pages(kv_specs(self.model.fields, asked), asked)
        most = max(self.model.sizes.positions or UNTOLD_TOKENS, resolved.model_len)
        return Trial(launch, resolved, self._account(launch, resolved), cache, most)

    def _account(self, launch: Launch, resolved: Resolved) -> tuple[DeviceAccount, ...]:
        on, sizes = resolved.card, self.model.sizes
        key = (
            _ARGUMENTS(resolved.launch),
            resolved.model_len,
            resolved.defaults,
            on.platform,
            on.capability,
            on.multiprocessors,
        )
        found = self._accounts.get(key)
        if found is not None:
            return found
        weighing = (
            _WEIGHING(resolved.launch),
            resolved.defaults.max_num_batched_tokens if sizes.deepstack_levels else None,
            None if sizes.positions else resolved.model_len,
            on.platform,
            on.capability,
        )
        known = self._weights.get(weighing)
        found = self._accounts[key] = account(self.model, launch, stored=self._stored, resolved=resolved, weights=known)
        if known is None:
            self._weights[weighing] = tuple(each.weights for each in found)
        return found


_OF_THE_DEVICE = ("device_name", "device_bytes")
_NOT_OF_WEIGHTS = (*_OF_THE_DEVICE, "max_num_seqs", "max_num_batched_tokens", "max_model_len", "kv_cache_dtype")


def _without(names: tuple[str, ...]) -> Callable[[Launch], object]:
    return attrgetter(*(each.name for each in fields(Launch) if each.name not in names))


_ARGUMENTS = _without(_OF_THE_DEVICE)
"""A card decides by its class alone, once defaults are filled in."""
_WEIGHING = _without(_NOT_OF_WEIGHTS)
"""Length and step decide weights only where tables follow them, a card by its kernels."""
