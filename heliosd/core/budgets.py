"""What an API key may use until when, and whether it has. Days and months are those of UTC."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Period = Literal["day", "month"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Of one key; zero: no limit."""

    amount: float = 0.0
    """In the operator's currency."""
    period: Period = "month"
    tokens_per_day: int = 0
    """Of prompts, cached or not, and answers together."""


NO_LIMIT = Budget()


@dataclass(frozen=True, slots=True)
class Spent:
    """By one key so far."""

    day_cost: float = 0.0
    month_cost: float = 0.0
    day_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Why a key gets no more, and when it does again."""

    message: str
    renewed_in_s: float


def exhausted(key: str, budget: Budget, spent: Spent, now: datetime, currency: str) -> Exhausted | None:
    """None: the key may ask. One that may is not stopped midway, so the last answers may go beyond."""
    if budget.tokens_per_day and spent.day_tokens >= budget.tokens_per_day:
        used = f"{spent.day_tokens:,} of {budget.tokens_per_day:,} tokens of {now:%Y-%m-%d} (UTC) are used"
        return _told(key, used, renewal("day", now), now, "--tokens-per-day")
    cost = spent.day_cost if budget.period == "day" else spent.month_cost
    if budget.amount and cost >= budget.amount:
        shown = f"{now:%Y-%m-%d}" if budget.period == "day" else f"{now:%Y-%m}"
        used = f"{cost:.4f} of {budget.amount:.4f} {currency} of {shown} (UTC) are spent"
        return _told(key, used, renewal(budget.period, now), now, "--budget")
    return None


def renewal(period: Period, now: datetime) -> datetime:
    """When the day or the month after `now` begins."""
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
    if period == "day":
        return midnight + timedelta(days=1)
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)


def _told(key: str, used: str, renewed: datetime, now: datetime, option: str) -> Exhausted:
    message = (
        f"cannot take more requests with the key {key!r}: {used}; it is renewed at {renewed:%Y-%m-%d %H:%M} UTC. "
        f"Wait until then, or let the operator raise it: `heliosctl keys set {key} {option}`"
    )
    return Exhausted(message, (renewed - now).total_seconds())
