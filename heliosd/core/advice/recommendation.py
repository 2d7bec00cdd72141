"""A recommendation: what to do, what it brings, the figures that say so, and how it is carried out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from heliosd.core.advice.facts import Facts
from heliosd.core.units import GiB

HOURS_A_MONTH = 730


class Where(StrEnum):
    """Whose bytes."""

    DEVICE = "device"
    HOST = "host"
    DISK = "disk"


WEIGHT = {Where.DEVICE: 1.0, Where.HOST: 0.1, Where.DISK: 0.005}
"""What a GiB counts for in the ranking, against one of a device: about what each costs to buy."""
GIB_FOR_S = 0.02
"""And a second of waiting a day: fifty of them count as much as a GiB of a device."""


@dataclass(frozen=True, slots=True)
class Call:
    """Of the admin API."""

    method: str
    path: str
    body: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """Of the configuration: a dotted key as TOML writes it, what it is, and what it should be."""

    key: str
    before: str
    after: int | float | bool | str


@dataclass(frozen=True, slots=True)
class Recommendation:
    rule: str
    subject: str
    title: str
    """What to do: `unpin org/name`."""
    why: str
    evidence: tuple[tuple[str, str], ...]
    """Name and value of each figure it rests on."""
    frees_bytes: int = 0
    where: Where = Where.DEVICE
    saves_s_per_day: float = 0.0
    """Of waiting for starts; below zero: it costs so much."""
    before: str = ""
    after: str = ""
    """The difference in words: `pinned, 1 replica` and `not pinned`."""
    calls: tuple[Call, ...] = ()
    settings: tuple[Setting, ...] = ()
    by_hand: str = ""
    """What only a person can do; told also where there are calls or settings."""
    gib_hour_price: float | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """The same as long as it says the same thing of the same subject."""
        return f"{self.rule}:{self.subject}"

    @property
    def money_per_month(self) -> float | None:
        """What the bytes of devices cost that it frees; None: no price is known."""
        if self.gib_hour_price is None or self.where is not Where.DEVICE:
            return None
        return self.frees_bytes / GiB * self.gib_hour_price * HOURS_A_MONTH

    @property
    def weight(self) -> float:
        """In GiB of a device: what it brings, bytes and seconds together."""
        return self.frees_bytes / GiB * WEIGHT[self.where] + self.saves_s_per_day * GIB_FOR_S


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule says nothing before the node has counted for `least_hours`."""

    name: str
    about: str
    least_hours: int
    judge: Callable[[Facts], Iterator[Recommendation]]


@dataclass(frozen=True, slots=True)
class Quiet:
    """A rule that cannot say anything yet."""

    rule: str
    why: str
