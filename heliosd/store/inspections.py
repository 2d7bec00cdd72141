"""What is known of each revision's files: the facts of all of them in memory and in the database, so that a start
reads no headers; what estimates rest on, of those asked about last.

A revision never changes, and so neither does what its files say.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import sqlite_utils

from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest
from heliosd.core.profile import ModelProfile
from heliosd.errors import CorruptData
from heliosd.estimation.known import Known
from heliosd.state.database import Database
from heliosd.store.blobs import FindRecipes
from heliosd.store.inspection import INSPECTOR, Facts, Inspected, inspect
from heliosd.store.threads import Threads

log = logging.getLogger("heliosd.store")

REMEMBERED = 64
"""Revisions whose headers are kept in memory: some ten to a hundred KiB each."""


class Inspections:
    def __init__(
        self, database: Database, place: Callable[[Digest], Path], threads: Threads, find_recipes: FindRecipes
    ) -> None:
        """`place`: where a blob, or at least its beginning, lies."""
        self._database = database
        self._place = place
        self._threads = threads
        self._find_recipes = find_recipes
        self._facts: dict[Digest, Facts] = {}
        self._read = False
        self._known: OrderedDict[Digest, Known] = OrderedDict()
        self._damaged: set[Digest] = set()

    def mended(self) -> None:
        """Something was added: what was damaged may be whole again."""
        self._damaged.clear()

    def forget(self, revision: Digest) -> None:
        self._facts.pop(revision, None)
        self._known.pop(revision, None)

    async def note(self, revision: Digest, seen: Inspected) -> None:
        """Remember what was found on the way in."""
        self._remember(revision, seen.known)
        await self._keep({revision: seen.facts})

    async def facts(self, manifests: Mapping[Digest, Manifest]) -> dict[Digest, Facts]:
        """Of these revisions. One whose files cannot be read is listed all the same, so that it can be removed."""
        if not self._read:
            self._facts = await self._database.run(_load) | self._facts
            self._read = True
        found: dict[Digest, Facts] = {}
        fresh: dict[Digest, Facts] = {}
        for revision, manifest in manifests.items():
            facts = self._facts.get(revision)
            if facts is None and (seen := await self._inspect(revision, manifest)):
                facts = fresh[revision] = seen.facts
            found[revision] = facts or Facts(ModelProfile(None, manifest.size_bytes, *(None,) * 8))
        if fresh:
            await self._keep(fresh)
        return found

    async def known(self, revision: Digest, manifest: Manifest) -> Known:
        """What estimates of it rest on; nothing when its files cannot be read."""
        if revision in self._known:
            self._known.move_to_end(revision)
            return self._known[revision]
        seen = await self._inspect(revision, manifest)
        if seen is None:
            return Known()
        self._remember(revision, seen.known)
        return seen.known

    def _remember(self, revision: Digest, known: Known) -> None:
        self._known[revision] = known
        self._known.move_to_end(revision)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def _inspect(self, revision: Digest, manifest: Manifest) -> Inspected | None:
        if revision in self._damaged:
            return None
        try:
            recipes = await self._find_recipes({file.digest for file in manifest.files})
            return await self._threads.run(inspect, manifest, self._place, recipes)
        except CorruptData as error:
            log.error("model is damaged", extra={"revision": revision, "cause": str(error)})
            self._damaged.add(revision)
            return None

    async def _keep(self, facts: Mapping[Digest, Facts]) -> None:
        self._facts |= facts
        rows = [(revision, INSPECTOR, each.to_json()) for revision, each in facts.items()]
        await self._database.run(lambda db: _save(db, rows))


def _load(db: sqlite_utils.Database) -> dict[Digest, Facts]:
    found: dict[Digest, Facts] = {}
    for revision, text in db.execute("select revision, facts from inspections where inspector = ?", (INSPECTOR,)):
        with suppress(ValueError, TypeError, KeyError):  # they are read from the files again
            found[Digest(revision)] = Facts.from_json(text)
    return found


def _save(db: sqlite_utils.Database, rows: Iterable[tuple[str, str, str]]) -> None:
    # A revision may have gone meanwhile.
    db.conn.executemany(
        "insert or replace into inspections select ?1, ?2, ?3 where exists (select 1 from revisions where id = ?1)",
        rows,
    )
