"""GPUs that can be bought or rented, and the slices that MIG cuts them into: memory, precisions, links, a price.

Memory, capability and multiprocessors of whole cards are `engine_cards`'; here is what engines do not ask. Prices are
assumptions (`PRICES_AS_OF`), good for ranking alone; operators give their own to `priced`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum

from heliosd.core.units import GiB
from heliosd.errors import BadRequest
from heliosd.estimation.engine_cards import card
from heliosd.estimation.launch import Platform
from heliosd.estimation.precision import Precision, Support, fp8_cache, support

PRICES_AS_OF = "2026-11"
"""USD per GPU and hour as assumed then, from the order of magnitude of on-demand offers; never looked up."""


MOST_USD_PER_HOUR = 1e6


class Link(StrEnum):
    """How cards of a kind reach each other."""

    NVLINK = "nvlink"
    INFINITY = "infinity fabric"
    PCIE = "pcie"
    NONE = "none"
    """Slices: no peer access at all."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of card, or of slice."""

    name: str
    device_name: str
    """As its driver has it."""
    usable_bytes: int
    """As torch sees them."""
    capability: tuple[int, int] | None
    platform: Platform
    multiprocessors: int
    link: Link
    link_group: int
    """Cards that a fast link joins; 0 where there is none and tensor parallelism goes over PCIe."""
    usd_per_hour: float
    slice_of: str | None = None
    own_price: bool = False
    """Told by the operator, not assumed."""

    @property
    def fp8_cache(self) -> bool:
        return fp8_cache(self.capability, self.platform)

    def support(self, precision: Precision) -> Support:
        """What it makes of weights in `precision`."""
        return support(precision, self.capability, self.platform)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those it multiplies in."""
        return tuple(each for each in Precision if self.support(each) is Support.NATIVE)


@dataclass(frozen=True, slots=True)
class _Card:
    name: str
    device_name: str
    link: Link
    group: int
    usd: float


_NV, _PCIE = Link.NVLINK, Link.PCIE
_CARDS = (
    _Card("V100-16", "Tesla V100-SXM2-16GB", _NV, 8, 0.40),
    _Card("V100-32", "Tesla V100-SXM2-32GB", _NV, 8, 0.55),
    _Card("T4", "Tesla T4", _PCIE, 0, 0.30),
    _Card("A10", "NVIDIA A10", _PCIE, 0, 0.60),
    _Card("A10G", "NVIDIA A10G", _PCIE, 0, 0.75),
    _Card("L4", "NVIDIA L4", _PCIE, 0, 0.55),
    _Card("L40S", "NVIDIA L40S", _PCIE, 0, 1.10),
    _Card("A100-80", "NVIDIA A100-SXM4-80GB", _NV, 8, 1.60),
    _Card("A100-40", "NVIDIA A100-SXM4-40GB", _NV, 8, 1.20),
    _Card("H100", "NVIDIA H100 80GB HBM3", _NV, 8, 2.60),
    _Card("H100-PCIe", "NVIDIA H100 PCIe", _PCIE, 0, 2.20),
    _Card("H100-NVL", "NVIDIA H100 NVL", _NV, 2, 2.50),
    _Card("H200", "NVIDIA H200", _NV, 8, 3.40),
    _Card("B200", "NVIDIA B200", _NV, 8, 5.00),
    _Card("B300", "NVIDIA B300", _NV, 8, 6.50),
    _Card("GH200-96", "NVIDIA GH200 96GB HBM3", _NV, 1, 2.00),
    _Card("MI300X", "AMD Instinct MI300X", Link.INFINITY, 8, 2.40),
    _Card("RTX-3090", "NVIDIA GeForce RTX 3090", _PCIE, 0, 0.22),
    _Card("RTX-4090", "NVIDIA GeForce RTX 4090", _PCIE, 0, 0.40),
    _Card("RTX-5090", "NVIDIA GeForce RTX 5090", _PCIE, 0, 0.65),
    _Card("RTX-PRO-6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", _PCIE, 0, 1.60),
)

_Slice = tuple[str, float, int]
_SLICES: dict[str, tuple[_Slice, ...]] = {
    "A100-40": (("1g.5gb", 4.75, 14), ("1g.10gb", 9.62, 14), ("2g.10gb", 9.62, 28), ("3g.20gb", 19.50, 42),
                ("4g.20gb", 19.50, 56), ("7g.40gb", 39.25, 98)),
    "A100-80": (("1g.10gb", 9.50, 14), ("1g.20gb", 19.50, 14), ("2g.20gb", 19.50, 28), ("3g.40gb", 39.25, 42),
                ("4g.40gb", 39.25, 56), ("7g.80gb", 79.00, 98)),
    "H100": (("1g.10gb", 9.75, 16), ("1g.20gb", 19.62, 26), ("2g.20gb", 19.62, 32), ("3g.40gb", 39.50, 60),
             ("4g.40gb", 39.50, 64), ("7g.80gb", 79.00, 132)),
    "H200": (("1g.18gb", 16.00, 16), ("1g.35gb", 32.50, 26), ("2g.35gb", 32.50, 32), ("3g.71gb", 69.00, 60),
             ("4g.71gb", 69.00, 64), ("7g.141gb", 139.50, 132)),
    "B200": (("1g.23gb", 20.50, 18), ("1g.45gb", 42.00, 18), ("2g.45gb", 42.00, 36), ("3g.90gb", 87.00, 70),
             ("4g.90gb", 87.00, 74), ("7g.180gb", 177.50, 148)),
}  # fmt: skip
"""Profile, GiB and multiprocessors as `nvidia-smi mig -lgip` lists them, the least where drivers differ. Not seen in a
listing and so rounded down from the card's half or quarter: H200's 3g and 4g, B200's but 1g.23gb."""


def _of(known: _Card) -> Gpu:
    on = card(known.device_name)
    return Gpu(
        name=known.name,
        device_name=known.device_name,
        usable_bytes=on.total_bytes,
        capability=on.capability,
        platform=on.platform,
        multiprocessors=on.multiprocessors or 0,
        link=known.link,
        link_group=known.group,
        usd_per_hour=known.usd,
    )


def _sliced(whole: Gpu, profile: str, gib: float, multiprocessors: int) -> Gpu:
    """Costs the larger of its shares of a card's seven parts of compute and eight of memory."""
    eighths = max(1, round(8 * gib * GiB / whole.usable_bytes))
    share = max(int(profile[0]) / 7, eighths / 8)
    return replace(
        whole,
        name=f"{whole.name} MIG {profile}",
        device_name=f"{whole.device_name} MIG {profile}",
        usable_bytes=round(gib * GiB),
        multiprocessors=multiprocessors,
        link=Link.NONE,
        link_group=1,
        usd_per_hour=round(whole.usd_per_hour * share, 3),
        slice_of=whole.name,
    )


CARDS: tuple[Gpu, ...] = tuple(_of(known) for known in _CARDS)
SLICES: tuple[Gpu, ...] = tuple(_sliced(each, *profile) for each in CARDS for profile in _SLICES.get(each.name, ()))
CATALOGUE: tuple[Gpu, ...] = (*CARDS, *SLICES)


def gpu(name: str, known: Iterable[Gpu] = CATALOGUE) -> Gpu:
    """The entry that people mean by `name`: "h100", "4090", "NVIDIA A100-SXM4-40GB", "MIG 1g.10gb".

    Spaces, dashes, case and makers' words do not count. Of several that match, the first in the catalogue; of slices,
    when the card is not said, the one with least memory, so that what fits there fits on any of them. Raises
    BadRequest, naming the nearest entries, when none matches.
    """
    entries = tuple(known)
    asked = _asked(name)
    exact = [each for each in entries if asked.words and not asked.sizes and asked.words in _names(each)]
    if exact:
        return exact[0]
    sliced = any(_PROFILE.fullmatch(word) for word in asked.words)
    candidates = [each for each in entries if (each.slice_of is not None) == sliced and _holds(each, asked.sizes)]
    found = [each for each in candidates if asked.words and asked.words <= frozenset().union(*_names(each))]
    if not found:
        found = [each for each in candidates if _begins(each, asked.words)]
    if not found:
        raise BadRequest(
            f"cannot find a GPU called {name[:60]!r}; did you mean {_nearest(name, entries, sliced=sliced)}?",
            code="unknown_gpu",
            param="gpu",
        )
    return min(found, key=lambda each: each.usable_bytes) if sliced else found[0]


def priced(prices: Mapping[str, float], known: Iterable[Gpu] = CATALOGUE) -> tuple[Gpu, ...]:
    """The catalogue with an operator's prices (USD per hour, by loose name); slices follow their card unless named.

    Raises BadRequest for a name that nobody knows and for a price that is no sensible number.
    """
    entries = tuple(known)
    if not prices:
        return entries
    try:
        own = {gpu(name, entries).name: price for name, price in prices.items()}
    except BadRequest as error:
        raise BadRequest(error.message, code=error.code, param="prices") from error
    for name, usd in own.items():
        if not 0 <= usd <= MOST_USD_PER_HOUR:
            raise BadRequest(
                f"cannot rank by {usd} USD an hour for {name}: from 0 to {MOST_USD_PER_HOUR:,.0f} is expected",
                code="bad_price",
                param="prices",
            )
    before = {each.name: each.usd_per_hour for each in entries}

    def price(each: Gpu) -> float:
        if each.name in own or each.slice_of not in own or not before.get(each.slice_of):
            return own.get(each.name, each.usd_per_hour)
        return round(each.usd_per_hour * own[each.slice_of] / before[each.slice_of], 3)

    def told(each: Gpu) -> bool:
        return each.name in own or each.slice_of in own

    return tuple(replace(each, usd_per_hour=price(each), own_price=True) if told(each) else each for each in entries)


_PROFILE = re.compile(r"\d+g\.\d+gb")
_NOISE = frozenset(
    ("nvidia", "amd", "tesla", "geforce", "instinct", "mig", "gpu", "rtx", "gtx", "hbm2", "hbm2e", "hbm3", "hbm3e")
)
_TOKEN = re.compile(r"\d+g\.\d+gb|[a-z]+\d*[a-z]*|\d+[a-z]*")
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+) ?(?:gb|gib|g)\b(?!\.)")
_MAKER = re.compile(r"\b(rtx|gtx|pro)(?=\d)")
SHORTEST_BEGINNING = 4


@dataclass(frozen=True, slots=True)
class _Asked:
    words: frozenset[str]
    sizes: tuple[int, ...]
    """Gigabytes, as on the box."""


def _asked(name: str) -> _Asked:
    """`RTX4090`, `rtx-4090` and `4090` are the word `4090`; `80 GB` is a size, the `gb` of a profile is not."""
    text = _MAKER.sub(r"\1 ", name.lower()[:200])
    sizes = tuple(int(found) for found in _SIZE.findall(text))
    return _Asked(frozenset(_TOKEN.findall(_SIZE.sub(" ", text))) - _NOISE, sizes)


def _names(each: Gpu) -> tuple[frozenset[str], frozenset[str]]:
    return _asked(each.name).words, _asked(each.device_name).words


def _holds(each: Gpu, sizes: tuple[int, ...]) -> bool:
    """The box says up to a tenth more than torch sees; a slice's box is its card's."""
    total = card(each.device_name.partition(" MIG ")[0]).total_bytes if each.slice_of else each.usable_bytes
    return all(0.95 <= size * GiB / total <= 1.12 for size in sizes)


def _begins(each: Gpu, words: frozenset[str]) -> bool:
    known = frozenset().union(*_names(each))
    return bool(words) and all(
        len(word) >= SHORTEST_BEGINNING and any(name.startswith(word) for name in known) for word in words
    )


def _nearest(name: str, entries: tuple[Gpu, ...], *, sliced: bool) -> str:
    by_lower = {each.name.lower(): each.name for each in entries if (each.slice_of is not None) == sliced}
    close = get_close_matches(name.lower()[:60], by_lower, n=4, cutoff=0.3) or list(by_lower)[:4]
    return ", ".join(by_lower[each] for each in close)
