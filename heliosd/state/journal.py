"""The journal: every decision with its reason, in order, for `explain`, the feed, the TUI and later replay.

Entries are written in batches by one task, so that the request path never waits for a disk; readers and followers see
an entry only after it is committed.
"""

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import sqlite_utils

from heliosd.state.database import Database

log = logging.getLogger("heliosd.state")

FOLLOWER_BACKLOG = 1000
KEPT_ENTRIES = 200_000


@dataclass(frozen=True, slots=True)
class JournalEntry:
    id: int
    at: float
    """Seconds since the epoch."""
    kind: str
    message: str
    ticket: str | None = None
    model: str | None = None
    replica: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


class Journal:
    """Owner of the journal table. `run` must be running for entries to be written."""

    def __init__(self, database: Database) -> None:
        self.trace_of: Callable[[str | None, str | None], str | None] | None = None
        """Of a ticket and a replica the id of the trace that tells of them; None: nothing is traced."""
        self._database = database
        self._inbox: asyncio.Queue[JournalEntry | asyncio.Future[None]] = asyncio.Queue()
        self._followers: set[asyncio.Queue[JournalEntry | None]] = set()
        self.written = 0
        """Lines on disk since this process began."""
        self.lost = 0
        """Lines that could not be written since this process began."""
        self._losing: int | None = None

    def note(
        self,
        kind: str,
        message: str,
        *,
        ticket: str | None = None,
        model: str | None = None,
        replica: str | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Queue an entry; never blocks."""
        if self.trace_of is not None and (trace_id := self.trace_of(ticket, replica)) is not None:
            detail = {**(detail or {}), "trace_id": trace_id}
        self._inbox.put_nowait(JournalEntry(0, time.time(), kind, message, ticket, model, replica, detail or {}))

    async def flushed(self) -> None:
        """Return once everything noted so far is on disk."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(done)
        await done

    async def run(self) -> None:
        """Write what is noted, batch by batch, until cancelled; what is queued then is still written."""
        try:
            while True:
                await self._write([await self._inbox.get()])
        finally:
            if not self._inbox.empty():
                await self._write([])

    async def _write(self, batch: list[JournalEntry | asyncio.Future[None]]) -> None:
        with suppress(asyncio.QueueEmpty):
            while len(batch) < 1000:
                batch.append(self._inbox.get_nowait())
        entries = [item for item in batch if isinstance(item, JournalEntry)]
        waiting = [item for item in batch if not isinstance(item, JournalEntry)]
        if entries:
            try:
                # A batch that has left the inbox is written to the end, also when this task is cancelled meanwhile.
                written = await asyncio.shield(self._database.run(lambda db: _insert(db, entries)))
            except sqlite3.Error as error:  # a full disk costs lines of the journal, never the service
                self._lose(len(entries), error)
            else:
                self._keep(written)
        for done in waiting:
            if not done.done():
                done.set_result(None)

    def _keep(self, entries: list[JournalEntry]) -> None:
        if self._losing is not None:
            log.warning("journal written again", extra={"lost": self._losing})
            self._losing = None
        self.written += len(entries)
        for entry in entries:
            self._tell(entry)

    def _lose(self, count: int, error: sqlite3.Error) -> None:
        """Said at the first loss and when writing works again: whoever fills a disk must not be sent more lines."""
        if self._losing is None:
            log.error("journal cannot be written", extra={"lost": count, "cause": str(error)})
        self._losing = (self._losing or 0) + count
        self.lost += count

    def _tell(self, entry: JournalEntry) -> None:
        """A follower that does not keep up is ended rather than buffered without bound."""
        for follower in list(self._followers):
            try:
                follower.put_nowait(entry)
            except asyncio.QueueFull:
                self._followers.discard(follower)
                follower.get_nowait()
                follower.put_nowait(None)

    async def read(
        self,
        *,
        after: int = 0,
        limit: int = 500,
        subject: str | None = None,
        kinds: Sequence[str] = (),
        since: float = 0.0,
    ) -> list[JournalEntry]:
        """Entries, oldest first; `subject` is a ticket, a model or a replica, `kinds` the only ones wanted, `since`
        when they begin, in seconds since the epoch.

        Without `after` the last `limit` of all; with it the first `limit` behind that id, so that who asks again from
        the last one he got misses nothing.
        """
        where: str = "id > ?"
        values: list[object] = [after]
        if subject is not None:
            where += " and (ticket = ? or model = ? or replica = ?)"
            values += [subject] * 3
        if kinds:
            where += f" and kind in ({', '.join('?' * len(kinds))})"
            values += kinds
        if since:
            where += " and at >= ?"
            values.append(since)
        order = "id" if after else "id desc"
        rows = await self._database.run(
            lambda db: list(db.table("journal").rows_where(where, values, order_by=order, limit=limit))
        )
        return sorted(map(_entry, rows), key=lambda entry: entry.id)

    async def last_replica(self) -> int:
        """The greatest number of a replica (`r7`: 7) that is told of; 0 when there is none."""
        query = "select max(cast(substr(replica, 2) as integer)) from journal where replica like 'r%'"
        rows = await self._database.run(lambda db: db.execute(query).fetchone())
        return int(rows[0] or 0)

    async def follow(self) -> AsyncIterator[JournalEntry]:
        """Entries from now on, as they are committed; ends when the reader is too slow."""
        mine: asyncio.Queue[JournalEntry | None] = asyncio.Queue(FOLLOWER_BACKLOG)
        self._followers.add(mine)
        try:
            while (entry := await mine.get()) is not None:
                yield entry
        finally:
            self._followers.discard(mine)


def _insert(db: sqlite_utils.Database, entries: list[JournalEntry]) -> list[JournalEntry]:
    written = []
    for entry in entries:
        cursor = db.execute(
            "insert into journal (at, kind, ticket, model, replica, message, detail) values (?, ?, ?, ?, ?, ?, ?)",
            [
                entry.at,
                entry.kind,
                entry.ticket,
                entry.model,
                entry.replica,
                entry.message,
                json.dumps(entry.detail, separators=(",", ":")),
            ],
        )
        number = int(cursor.lastrowid or 0)
        written.append(
            JournalEntry(
                number, entry.at, entry.kind, entry.message, entry.ticket, entry.model, entry.replica, entry.detail
            )
        )
    if written and written[-1].id % 1000 < len(written):
        db.execute("delete from journal where id <= ?", [written[-1].id - KEPT_ENTRIES])
    return written


def _entry(row: dict[str, Any]) -> JournalEntry:
    return JournalEntry(
        row["id"],
        row["at"],
        row["kind"],
        row["message"],
        row["ticket"],
        row["model"],
        row["replica"],
        json.loads(row["detail"] or "{}"),
    )
