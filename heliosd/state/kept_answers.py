"""Answers to changes that a client may repeat under the same idempotency key, kept for a day."""

import time
from dataclasses import dataclass

import sqlite_utils

from heliosd.state.database import Database

KEPT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Kept:
    fingerprint: str
    """Of method, path, query and body."""
    status: int = 0
    """0: it was begun, and nobody knows how it ended."""
    media: str = ""
    body: bytes = b""


class KeptAnswers:
    """By who asked and his key; the table's only writer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, who: str, key: str, fingerprint: str) -> Kept | None:
        """What is kept under the key; None: nothing was, and the fingerprint is from now on."""
        now = time.time()

        def write(db: sqlite_utils.Database) -> Kept | None:
            db.execute("delete from kept_answers where at < ?", [now - KEPT_S])
            row = db.execute(
                "select fingerprint, status, media, body from kept_answers where who = ? and key = ?", [who, key]
            ).fetchone()
            if row is None:
                db.execute(
                    "insert into kept_answers (who, key, fingerprint, status, media, body, at) values (?,?,?,0,'',?,?)",
                    [who, key, fingerprint, b"", now],
                )
                return None
            return Kept(row[0], row[1], row[2], bytes(row[3]))

        return await self._database.run(write)

    async def keep(self, who: str, key: str, answer: Kept) -> None:
        """The answer to what was begun."""
        await self._database.run(
            lambda db: db.execute(
                "update kept_answers set status = ?, media = ?, body = ?, at = ? where who = ? and key = ?",
                [answer.status, answer.media, answer.body, time.time(), who, key],
            )
        )

    async def forget(self, who: str, key: str) -> None:
        """It came to nothing: whoever repeats it tries again, perhaps with another body."""
        await self._database.run(
            lambda db: db.execute("delete from kept_answers where who = ? and key = ?", [who, key])
        )
