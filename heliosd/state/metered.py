"""The tables of what was used: by day, account, model and device; what engines counted; and how daemons ended."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlite_utils

from heliosd.core.budgets import Spent
from heliosd.core.metering import NO_TOKENS, Tokens
from heliosd.core.prices import Cost
from heliosd.state.database import Database


class UsageOf(NamedTuple):
    """What a row is about."""

    day: str
    """Of UTC, `2026-11-26`."""
    account: str
    """The name of an API key; `core.metering` has the others."""
    model: str
    device: str
    """What the device is called, not which one it is."""
    currency: str


@dataclass(frozen=True, slots=True)
class Amount:
    """What was used. Amounts add up."""

    requests: int = 0
    tokens: Tokens = NO_TOKENS
    byte_s: int = 0
    """Bytes of device memory times seconds."""
    cost: Cost = field(default_factory=Cost)

    def plus(self, other: "Amount") -> "Amount":
        cost = Cost(*(a + b for a, b in zip(_costs(self), _costs(other), strict=True)))
        return Amount(self.requests + other.requests, self.tokens.plus(other.tokens), self.byte_s + other.byte_s, cost)


@dataclass(frozen=True, slots=True)
class Life:
    """How an earlier daemon ended."""

    written_at: float
    """When it wrote last, in seconds since the epoch."""
    ended: bool
    """It wrote everything."""


class MeteredTable:
    """The only writer of these tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, at: float) -> tuple[int, Life | None]:
        """Note that a daemon begins. Returns its number, and how the one before ended."""

        def work(db: sqlite_utils.Database) -> tuple[int, Life | None]:
            row = db.execute("select written_at, ended from metered_lives order by id desc limit 1").fetchone()
            db.execute("delete from metered_lives")
            written = db.execute("insert into metered_lives (began_at, written_at, ended) values (?, ?, 0)", [at, at])
            return written.lastrowid or 0, None if row is None else Life(row[0], bool(row[1]))

        return await self._database.run(work)

    async def add(
        self,
        life: int,
        at: float,
        rows: Mapping[UsageOf, Amount],
        engines: Mapping[tuple[str, str], Tokens],
        *,
        ended: bool = False,
    ) -> None:
        """Add to what is there, all or nothing; `engines` by day and model. Synced only when `ended`."""

        def work(db: sqlite_utils.Database) -> None:
            _add(db, "metered", UsageOf._fields, _AMOUNTS, ((*of, *_values(amount)) for of, amount in rows.items()))
            _add(db, "metered_engines", ("day", "model"), _TOKENS, ((*of, *counted) for of, counted in engines.items()))
            db.execute("update metered_lives set written_at = ?, ended = ? where id = ?", [at, int(ended), life])

        await self._database.run(work, synced=ended)

    async def read(self, since: str, until: str) -> list[tuple[UsageOf, Amount]]:
        """All rows of these days, both included."""
        names = ", ".join((*UsageOf._fields, *_AMOUNTS))
        where = f"select {names} from metered where day between ? and ? order by day, account, model, device, currency"
        rows = await self._database.run(lambda db: db.execute(where, [since, until]).fetchall())
        return [(UsageOf(*row[:5]), _amount(row[5:])) for row in rows]

    async def counted(self, since: str, until: str) -> Tokens:
        """What the engines' own counters said of these days."""
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in _TOKENS)
        query = f"select {sums} from metered_engines where day between ? and ?"
        row = await self._database.run(lambda db: db.execute(query, [since, until]).fetchone())
        return Tokens(*map(int, row))

    async def spent(self, day: str, currency: str) -> dict[str, Spent]:
        """By account, on this day and in its month. Costs in other currencies are not counted."""
        query = """
            select account,
                   sum(case when day = :day and currency = :currency
                       then memory_cost + prompt_cost + completion_cost else 0 end),
                   sum(case when currency = :currency then memory_cost + prompt_cost + completion_cost else 0 end),
                   sum(case when day = :day then prompt_tokens + completion_tokens else 0 end)
            from metered where day >= :month and day <= :day group by account
        """
        given = {"day": day, "month": f"{day[:7]}-01", "currency": currency}
        rows = await self._database.run(lambda db: db.execute(query, given).fetchall())
        return {account: Spent(day_cost, month_cost, int(tokens)) for account, day_cost, month_cost, tokens in rows}


_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
_AMOUNTS = ("requests", *_TOKENS, "byte_s", "memory_cost", "prompt_cost", "completion_cost")


def _add(
    db: sqlite_utils.Database, table: str, keys: Sequence[str], sums: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    names = (*keys, *sums)
    added = ", ".join(f"{name} = {name} + excluded.{name}" for name in sums)
    db.conn.executemany(
        f"insert into {table} ({', '.join(names)}) values ({', '.join('?' * len(names))}) "
        f"on conflict ({', '.join(keys)}) do update set {added}",
        list(rows),
    )


def _costs(amount: Amount) -> tuple[float, float, float]:
    return amount.cost.memory, amount.cost.prompt, amount.cost.completion


def _values(amount: Amount) -> tuple[float, ...]:
    return (amount.requests, *amount.tokens, amount.byte_s, *_costs(amount))


def _amount(row: Sequence[Any]) -> Amount:
    return Amount(int(row[0]), Tokens(*map(int, row[1:4])), int(row[4]), Cost(*row[5:8]))
