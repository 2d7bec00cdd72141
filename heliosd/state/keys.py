"""API keys: made at random, shown once, kept as sha256. Knows nothing of HTTP."""

import asyncio
import hashlib
import secrets
import sqlite3
import time
from dataclasses import dataclass, replace

import sqlite_utils

from heliosd.core.budgets import NO_LIMIT, Budget
from heliosd.core.messages import Priority
from heliosd.errors import Conflict, HeliosError, NotFound
from heliosd.state.database import Database

PREFIX = "hk-"
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key once its secret was handed out."""

    id: str
    name: str
    admin: bool
    created_at: float
    """Seconds since the epoch."""
    priority: Priority = Priority.NORMAL
    """The class of its requests."""
    share: float = 1.0
    """How much of a fair share it has beside other keys that wait."""
    budget: Budget = NO_LIMIT


class Keys:
    """The keys of this node; the table's only writer, with all of it in memory for looking up.

    A stolen database gives no key away: 256 random bits cannot be guessed from their sha256, so a slow password
    hash would only make each request slower.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_hash: dict[str, Key] = {}

    async def load(self) -> None:
        """Read all keys; call once, before the first `find`."""
        self._by_hash = await self._database.run(_read)

    def all(self) -> tuple[Key, ...]:
        """All keys, oldest first."""
        return tuple(sorted(self._by_hash.values(), key=lambda key: (key.created_at, key.name)))

    def named(self, name: str) -> Key | None:
        """The key of this name or id."""
        return next((key for key in self._by_hash.values() if name in (key.name, key.id)), None)

    def find(self, secret: str) -> Key | None:
        """The key this secret belongs to.

        What is looked up is the sha256 of what the caller sent. He cannot choose its digits, so how long a comparison
        takes tells him nothing about the secrets kept here; and it takes as long with a thousand keys as with one.
        """
        return self._by_hash.get(_digest(secret))

    async def add(
        self,
        name: str,
        *,
        admin: bool,
        priority: Priority = Priority.NORMAL,
        share: float = 1.0,
        budget: Budget | None = None,
    ) -> tuple[Key, str]:
        """Make a key; the second value is its secret, which nobody can show again.

        Raises Conflict when the name is taken.
        """
        secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        digest = _digest(secret)
        budget = budget or NO_LIMIT
        key = Key(f"key_{secrets.token_hex(4)}", name, admin, time.time(), priority, share, budget)

        def insert(db: sqlite_utils.Database) -> None:
            if db.execute("select 1 from keys where name = ?", [name]).fetchone():
                raise Conflict(
                    f"cannot make a key named {name!r}: there is one; remove it first or choose another name",
                    code="key_exists",
                )
            db.execute(
                "insert into keys (id, name, hash, admin, created_at, priority, share, budget, budget_period,"
                " tokens_per_day) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    *(key.id, key.name, digest, int(key.admin), key.created_at, _word(key.priority), key.share),
                    *(budget.amount, budget.period, budget.tokens_per_day),
                ],
            )

        async def keep() -> None:
            await self._database.run(insert)
            self._by_hash[digest] = key

        await asyncio.shield(keep())  # who stops waiting must not leave a key that is on disk and not in memory
        return key, secret

    async def change(
        self, name: str, *, priority: Priority | None = None, share: float | None = None, budget: Budget | None = None
    ) -> Key:
        """Give the key of this name or id other terms; None leaves one as it is. Requests that wait keep theirs.

        Raises NotFound when there is no such key, HeliosError when it cannot be written: then nothing has changed.
        """
        digest = self._digest_of(name, "change")

        def write(db: sqlite_utils.Database) -> None:
            words = None if priority is None else _word(priority)
            db.execute(
                "update keys set priority = coalesce(?, priority), share = coalesce(?, share) where hash = ?",
                [words, share, digest],
            )
            if budget is not None:
                db.execute(
                    "update keys set budget = ?, budget_period = ?, tokens_per_day = ? where hash = ?",
                    [budget.amount, budget.period, budget.tokens_per_day, digest],
                )

        async def keep() -> Key:
            try:
                await self._database.run(write)
            except sqlite3.Error as error:
                raise HeliosError(
                    f"cannot change the key {name!r}: the state database cannot be written ({error}). "
                    "It is as it was; make room on the disk and change it again",
                    code="state_not_written",
                ) from error
            key = self._by_hash.get(digest)
            if key is None:
                raise NotFound(f"cannot change the key {name!r}: it was removed meanwhile", code="key_not_found")
            terms = (key.priority if priority is None else priority, key.share if share is None else share)
            key = replace(key, priority=terms[0], share=terms[1], budget=budget or key.budget)
            self._by_hash[digest] = key
            return key

        return await asyncio.shield(keep())

    async def remove(self, name: str) -> Key:
        """Forget the key of this name or id at once, before it is off the disk.

        Raises NotFound when there is none, HeliosError when it cannot be taken off the disk: then it still holds.
        """
        digest = self._digest_of(name, "remove")
        key = self._by_hash.pop(digest)
        await asyncio.shield(self._forget(digest, key))
        return key

    def _digest_of(self, name: str, wish: str) -> str:
        digest = next((d for d, key in self._by_hash.items() if name in (key.name, key.id)), None)
        if digest is None:
            known = ", ".join(key.name for key in self.all()) or "none"
            raise NotFound(f"cannot {wish} the key {name!r}: it is not known; known are: {known}", code="key_not_found")
        return digest

    async def _forget(self, digest: str, key: Key) -> None:
        try:
            await self._database.run(lambda db: db.execute("delete from keys where hash = ?", [digest]))
        except sqlite3.Error as error:
            self._by_hash[digest] = key  # it would be back after a restart: better seen now, and removed again
            raise HeliosError(
                f"cannot remove the key {key.name!r}: the state database cannot be written ({error}). "
                "It still holds; make room on the disk and remove it again",
                code="state_not_written",
            ) from error


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _word(priority: Priority) -> str:
    return priority.name.lower()


def _read(db: sqlite_utils.Database) -> dict[str, Key]:
    names = "hash, id, name, admin, created_at, priority, share, budget, budget_period, tokens_per_day"
    rows = db.execute(f"select {names} from keys").fetchall()
    return {
        row[0]: Key(row[1], row[2], bool(row[3]), row[4], Priority[row[5].upper()], row[6], Budget(*row[7:10]))
        for row in rows
    }
