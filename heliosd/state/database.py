"""SQLite in one thread. Whoever needs a table asks `Database.run` with a function of the connection."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import sqlite_utils

from heliosd.errors import HeliosError
from heliosd.state.migrations import migrate

T = TypeVar("T")

Work = Callable[[sqlite_utils.Database], T]


class Database:
    """One connection, used by one thread of its own; WAL, every commit synced to disk.

    `run` wraps the given function in one transaction: it is committed when the function returns and rolled
    back when it raises.
    """

    def __init__(self, path: Path, took: Callable[[str, float], None] | None = None) -> None:
        """`took` is told, in the database thread, of each transaction: `write` or `read`, and its seconds."""
        self.path = path
        self.backlog = 0
        """Transactions that run or wait for their turn."""
        self._took = took
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._db: sqlite_utils.Database | None = None

    async def open(self) -> None:
        """Create or open the file and bring its tables up to date. Raises HeliosError when that fails."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite_utils.Database(self.path)
            for pragma in ("journal_mode=wal", "synchronous=full", "foreign_keys=on", "busy_timeout=10000"):
                db.execute(f"pragma {pragma}")
            migrate(db)
        except Exception as error:
            raise HeliosError(f"cannot open the state database {self.path}: {error}") from error
        self._db = db

    async def run(self, work: Work[T], *, synced: bool = True) -> T:
        """Run `work` in the database thread as one transaction, and return what it returns.

        Not `synced`, it outlives the process at once, and a failure of power only from the next commit that is: for
        what is written many times a second.
        """
        self.backlog += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work, synced)
        finally:
            self.backlog -= 1

    def _transact(self, work: Work[T], synced: bool) -> T:
        if self._db is None:
            raise HeliosError("cannot use the state database: it is not open")
        began, changes = time.perf_counter(), self._db.conn.total_changes
        if not synced:
            self._db.execute("pragma synchronous=normal")
        try:
            with self._db.atomic():
                return work(self._db)
        finally:
            if not synced:
                self._db.execute("pragma synchronous=full")
            if self._took is not None:
                kind = "read" if self._db.conn.total_changes == changes else "write"
                self._took(kind, time.perf_counter() - began)

    def sizes(self) -> tuple[int, int]:
        """Bytes of the file and of its write-ahead log. Asks the disk: call it in a thread."""
        return _size_bytes(self.path), _size_bytes(self.path.with_name(f"{self.path.name}-wal"))

    async def close(self) -> None:
        """Write everything back into the main file and close it."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=True)

    def _close(self) -> None:
        if self._db is not None:
            self._db.execute("pragma wal_checkpoint(truncate)")
            self._db.conn.close()
            self._db = None


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
