"""What the catalog remembers of files that were let go: their bytes are not here, their names and sizes are.

A row here is written in the transaction that removes the blob's, before the bytes go; it goes in the one that gives
the blob its row back, after they are durable again.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlite_utils

from heliosd.core.names import Digest
from heliosd.core.retention import Tier
from heliosd.state.database import Database

_OTHERS = (
    "select 1 from revisions, json_each(revisions.manifest) where json_extract(value, '$[1]') = ? and revisions.id != ?"
)
_PIECES = "select 1 from recipes, json_each(recipes.pieces) where json_extract(value, '$[0]') = ?"


@dataclass(frozen=True, slots=True)
class AwayFile:
    size_bytes: int
    tier: Tier
    """PEER or HUB: who had it when it was let go."""


class Away:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[Digest, AwayFile]:
        """Every file that was let go."""

        def work(db: sqlite_utils.Database) -> dict[Digest, AwayFile]:
            rows = db.execute("select digest, size_bytes, tier from away").fetchall()
            return {Digest(digest): AwayFile(size_bytes, Tier(tier)) for digest, size_bytes, tier in rows}

        return await self._database.run(work)

    async def among(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Those of these files that were let go."""
        wanted = json.dumps(list(digests))
        query = "select digest from away where digest in (select value from json_each(?))"
        return await self._database.run(
            lambda db: frozenset(Digest(row[0]) for row in db.execute(query, (wanted,)).fetchall())
        )

    async def loose(self, revision: Digest, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Those of a revision's files whose bytes are here and that nothing else in the store is made of."""
        return await self._database.run(lambda db: _loose(db, revision, tuple(digests)))

    async def leave(self, revision: Digest, files: Mapping[Digest, int], tier: Tier, now: float) -> bool:
        """Forget the blobs and remember that they are away. False, and nothing is changed, when something else has
        come to need one of them."""

        def work(db: sqlite_utils.Database) -> bool:
            if _loose(db, revision, tuple(files)) != files.keys():
                return False
            for digest, size_bytes in files.items():
                db.execute("delete from blobs where digest = ?", (digest,))
                row = (digest, size_bytes, str(tier), now)
                db.execute("insert or replace into away (digest, size_bytes, tier, at) values (?, ?, ?, ?)", row)
            db.execute("delete from extents where digest not in (select digest from blobs)")
            return True

        return await self._database.run(work)

    async def returned(self, files: Mapping[Digest, int], now: float) -> None:
        """Their bytes are here again, durably."""

        def work(db: sqlite_utils.Database) -> None:
            for digest, size_bytes in files.items():
                if db.execute("select 1 from away where digest = ?", (digest,)).fetchone():
                    row = (digest, size_bytes, now)
                    db.execute("insert or ignore into blobs (digest, size_bytes, created_at) values (?, ?, ?)", row)
                    db.execute("delete from away where digest = ?", (digest,))

        await self._database.run(work)


def _loose(db: sqlite_utils.Database, revision: Digest, digests: Iterable[Digest]) -> frozenset[Digest]:
    return frozenset(
        digest
        for digest in digests
        if db.execute("select 1 from blobs where digest = ?", (digest,)).fetchone()
        and not db.execute(f"{_OTHERS} limit 1", (digest, revision)).fetchone()
        and not db.execute(f"{_PIECES} limit 1", (digest,)).fetchone()
    )
