"""What the store knows: refs, aliases, revisions, recipes and blobs, as rows of the state database.

A row is written after the bytes are durable and removed before they are unlinked. So a blob without a row is
rubbish that the next start sweeps up, and a row without a blob is a fault. A file that is kept as a recipe has no
row among the blobs; those it is made of have theirs for as long as there is the recipe, and that is there for as long
as a revision has the file.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlite_utils

from heliosd.core.manifest import Manifest, ManifestFile, manifest_of
from heliosd.core.names import Digest, ModelRef, digest_beginning, kept_ref, parse_ref
from heliosd.errors import Conflict, NotFound
from heliosd.state.database import Database, T, Work
from heliosd.store import history
from heliosd.store.recipe import Recipe, from_row, to_row
from heliosd.store.stored import PastRevision, Record
from heliosd.store.usage import Holdings

_WANTED = "select json_extract(value, '$[1]') from revisions, json_each(revisions.manifest)"
_PIECES = "select json_extract(value, '$[0]') from recipes, json_each(recipes.pieces)"


class Catalog:
    def __init__(self, database: Database, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called after each commit, before whoever asked for it goes on."""
        self._database = database
        self._changed = changed

    async def _change(self, work: Work[T]) -> T:
        # Also when the caller was cancelled: the database's thread may have committed all the same. Too early is not
        # a danger, for what is asked of that one thread from now on it answers after the commit.
        try:
            return await self._database.run(work)
        finally:
            self._changed()

    async def records(self) -> tuple[Record, ...]:
        """Every ref, by name."""
        return await self._database.run(lambda db: _records(db, "1", ()))

    async def find(self, ref: ModelRef) -> Record | None:
        """The ref itself, what an alias of that name points to, or a revision that is asked for by its digest.

        Raises BadRequest when several revisions begin with the digits given.
        """
        return await self._database.run(lambda db: _find(db, ref))

    async def revision(self, revision: Digest) -> Record | None:
        """A revision under one of the names that it has or had; None when there is none."""

        def work(db: sqlite_utils.Database) -> Record | None:
            query = "select name, label from history where revision = ? order by id desc limit 1"
            row = db.execute(query, (revision,)).fetchone()
            found = _kept(db, kept_ref(ModelRef(*row), revision)) if row else ()
            return found[0] if found and found[0].revision == revision else None

        return await self._database.run(work)

    async def manifest(self, revision: Digest) -> Manifest | None:
        def work(db: sqlite_utils.Database) -> Manifest | None:
            row = db.execute("select manifest from revisions where id = ?", (revision,)).fetchone()
            return row and _manifest(row[0])

        return await self._database.run(work)

    async def digests(self) -> frozenset[Digest]:
        """Every blob the catalog knows."""
        return await self._database.run(lambda db: frozenset(row[0] for row in db.execute("select digest from blobs")))

    async def revisions(self) -> frozenset[Digest]:
        return await self._database.run(lambda db: frozenset(row[0] for row in db.execute("select id from revisions")))

    async def check_names(self, ref: ModelRef, alias: str | None) -> None:
        """Raise Conflict when a model could not be committed under these names: known before anything is fetched."""
        await self._database.run(lambda db: _check_names(db, ref, alias))

    async def commit(
        self,
        ref: ModelRef,
        manifest: Manifest,
        origin: Mapping[str, Any],
        alias: str | None,
        now: float,
        base: ModelRef | None = None,
        recipes: Mapping[Digest, Recipe] | None = None,
        pieces: Mapping[Digest, int] | None = None,
    ) -> None:
        """Let `ref` mean this manifest from now on, in one transaction. What it meant before stays in its history.

        `recipes`: which of its files are kept so; `pieces`: the sizes of the blobs that those are made of.

        Raises Conflict when the alias is the name of a model, and when `base`, of an adapter, has just been removed.
        """
        await self._change(
            lambda db: _commit(
                db,
                ref,
                manifest=manifest,
                origin=origin,
                alias=alias,
                now=now,
                base=base,
                recipes=recipes or {},
                pieces=pieces or {},
            )
        )

    async def recipes(self, digests: Iterable[Digest]) -> dict[Digest, Recipe]:
        """Those of these files that are kept as recipes."""
        wanted = json.dumps(list(digests))

        def work(db: sqlite_utils.Database) -> dict[Digest, Recipe]:
            query = "select digest, pieces from recipes where digest in (select value from json_each(?))"
            return {Digest(digest): from_row(pieces) for digest, pieces in db.execute(query, (wanted,))}

        return await self._database.run(work)

    async def files(self) -> tuple[tuple[str, Digest, int], ...]:
        """`(path, digest, size)` of every file of every revision whose bytes are here, each digest once, the oldest
        first."""
        query = (
            "select json_extract(value, '$[0]'), json_extract(value, '$[1]') as digest, json_extract(value, '$[2]')"
            " from revisions, json_each(revisions.manifest)"
            " where json_extract(value, '$[1]') not in (select digest from away) group by digest"
            " order by min(revisions.created_at), 1"
        )
        return await self._database.run(
            lambda db: tuple((path, Digest(digest), size) for path, digest, size in db.execute(query))
        )

    async def compared(self) -> frozenset[Digest]:
        """The files that `set_compared` told of."""
        return await self._database.run(
            lambda db: frozenset(Digest(row[0]) for row in db.execute("select digest from compared"))
        )

    async def set_compared(self, digest: Digest) -> None:
        """Remember that a file was compared with all older ones."""
        await self._database.run(lambda db: db.execute("insert or ignore into compared values (?)", (digest,)))

    async def set_recipe(self, digest: Digest, recipe: Recipe, now: float, new: Mapping[Digest, int]) -> bool:
        """Keep the file as a recipe from now on. `new`: blobs, with their sizes, that came to be for it.

        False, and nothing is changed, when the file or one of the other blobs is no longer wanted, or when a recipe
        is made of the file itself: recipes are made of blobs only.
        """

        def work(db: sqlite_utils.Database) -> bool:
            needed = {digest, *recipe.blobs - new.keys()}
            query = "select count(*) from blobs where digest in (select value from json_each(?))"
            if db.execute(query, (json.dumps(list(needed)),)).fetchone()[0] != len(needed):
                return False
            if db.execute(f"select 1 where ? in ({_PIECES})", (digest,)).fetchone():
                return False
            _insert_recipe(db, digest, recipe, now)
            _insert_blobs(db, new.items(), now)
            db.execute("delete from blobs where digest = ?", (digest,))
            return True

        return await self._database.run(work)

    async def sizes(self) -> tuple[int, int]:
        """Bytes of every ref's files, and of all blobs."""
        files = "select coalesce(sum(size_bytes), 0) from refs join revisions on revisions.id = refs.revision"
        blobs = "select coalesce(sum(size_bytes), 0) from blobs"
        return await self._database.run(lambda db: (db.execute(files).fetchone()[0], db.execute(blobs).fetchone()[0]))

    async def holdings(self) -> Holdings:
        """Everything that takes room on the disk, and for whom."""
        return await self._database.run(_holdings)

    async def extents(self) -> frozenset[Digest]:
        """The blobs that share blocks with one another on the disk."""
        return await self._database.run(
            lambda db: frozenset(Digest(row[0]) for row in db.execute("select digest from extents"))
        )

    async def set_extents(self, digests: Iterable[Digest]) -> None:
        """Remember that these blobs share blocks with one another."""
        rows = json.dumps(list(digests))
        known = "select digest from blobs where digest in (select value from json_each(?))"
        await self._database.run(lambda db: db.execute(f"insert or ignore into extents {known}", (rows,)))

    async def held_in(self, digest: Digest) -> tuple[Manifest, ...]:
        """The revisions that have this file."""
        query = "select distinct manifest from revisions, json_each(manifest) where json_extract(value, '$[1]') = ?"
        return await self._database.run(
            lambda db: tuple(_manifest(row[0]) for row in db.execute(query, (digest,)).fetchall())
        )

    async def pieces(self) -> frozenset[Digest]:
        """The blobs that recipes are made of."""
        return await self._database.run(lambda db: frozenset(Digest(row[0]) for row in db.execute(_PIECES)))

    async def adapters(self, base: ModelRef) -> tuple[Record, ...]:
        """The adapters of a model, by name."""
        return await self._database.run(lambda db: _records(db, "refs.base = ?", (str(base),)))

    async def remove(self, ref: ModelRef) -> frozenset[Digest]:
        """Drop the ref, if it is there, with its aliases; returns the blobs nobody wants any more.

        Raises Conflict while there are adapters of it.
        """

        def work(db: sqlite_utils.Database) -> frozenset[Digest]:
            if names := _adapters(db, ref):
                raise Conflict(
                    f"cannot remove {ref}: the store has {len(names)} adapters of it; remove {', '.join(names)} first",
                    code="model_has_adapters",
                )
            key = (ref.name, ref.revision)
            db.execute("delete from refs where name = ? and label = ?", key)
            db.execute("delete from aliases where name = ? and label = ?", key)
            db.execute("delete from history where name = ? and label = ?", key)
            return _drop_unwanted(db)

        return await self._change(work)

    async def past(self, ref: ModelRef) -> tuple[PastRevision, ...]:
        """The revisions of a ref that are here, the one it means now or meant last first."""
        return await self._database.run(lambda db: history.past(db, ref, _sizes(db)))

    async def all_past(self) -> tuple[PastRevision, ...]:
        """The same of every ref that has meant more than it means now, ref after ref, without sizes."""
        return await self._database.run(history.all_past)

    async def move(self, ref: ModelRef, beginning: str | None, now: float) -> tuple[PastRevision, PastRevision]:
        """Let `ref` mean another of its revisions again: the one that begins so, or the one it meant before.

        Returns what it meant until now and what it means from now on. Raises NotFound, BadRequest, and Conflict when
        it means that already or, of an adapter, when its base has gone.
        """
        return await self._change(lambda db: _move(db, ref, beginning, now))

    async def references(self) -> frozenset[tuple[ModelRef, Digest]]:
        """Every ref with each revision that it means or has meant."""

        def work(db: sqlite_utils.Database) -> frozenset[tuple[ModelRef, Digest]]:
            rows = db.execute("select name, label, revision from history union select name, label, revision from refs")
            return frozenset((ModelRef(name, label), Digest(revision)) for name, label, revision in rows)

        return await self._database.run(work)

    async def forget(self, past: Iterable[tuple[ModelRef, Digest]]) -> frozenset[Digest]:
        """Let go of revisions that refs meant earlier; returns the blobs nobody wants any more.

        Raises Conflict, and forgets none, when a ref means one of them now.
        """

        def work(db: sqlite_utils.Database) -> frozenset[Digest]:
            for ref, revision in past:
                history.forget(db, ref, revision)
            return _drop_unwanted(db)

        return await self._change(work)

    async def blobs(self) -> dict[Digest, frozenset[Digest]]:
        """The blobs that each revision's files are or are made of, whether or not a ref means it now."""
        return await self._database.run(_blobs)

    async def set_alias(self, alias: str, ref: ModelRef) -> None:
        """Let `alias` point to `ref`; setting it again moves it. Raises Conflict as `commit` does."""
        await self._change(lambda db: _set_alias(db, alias, ref))

    async def remove_alias(self, alias: str) -> ModelRef | None:
        """Forget an alias; returns what it meant, None when there is none of that name."""

        def work(db: sqlite_utils.Database) -> ModelRef | None:
            row = db.execute("delete from aliases where alias = ? returning name, label", (alias,)).fetchone()
            return row and ModelRef(*row)

        return await self._change(work)


def _manifest(text: str) -> Manifest:
    return manifest_of(ManifestFile(path, Digest(digest), size) for path, digest, size in json.loads(text))


def _records(db: sqlite_utils.Database, where: str, values: tuple[str, ...]) -> tuple[Record, ...]:
    rows = db.execute(
        "select refs.name, refs.label, revisions.id, manifest, source, created_at, base,"
        " (select json_group_array(alias) from aliases where name = refs.name and label = refs.label)"
        f" from refs join revisions on revisions.id = refs.revision where {where} order by refs.name, refs.label",
        values,
    ).fetchall()
    return tuple(
        Record(
            ModelRef(name, label),
            Digest(revision),
            _manifest(manifest),
            json.loads(origin),
            created_at,
            tuple(sorted(json.loads(aliases))),
            parse_ref(base) if base else None,
        )
        for name, label, revision, manifest, origin, created_at, base, aliases in rows
    )


def _find(db: sqlite_utils.Database, ref: ModelRef) -> Record | None:
    by_key = "refs.name = ? and refs.label = ?"
    found = _records(db, by_key, (ref.name, ref.revision))
    if not found:
        target = db.execute("select name, label from aliases where alias = ?", (str(ref),)).fetchone()
        found = _records(db, by_key, (target[0], target[1])) if target else _kept(db, ref)
    return found[0] if found else None


def _kept(db: sqlite_utils.Database, ref: ModelRef) -> tuple[Record, ...]:
    """What is meant by `org/name@1a2b3c4d`: the model itself where it means that now, else the revision it meant."""
    beginning = digest_beginning(ref)
    past = history.named(db, ref.name, beginning) if beginning else None
    if past is None:
        return ()
    of = past.ref
    if past.current:
        return _records(db, "refs.name = ? and refs.label = ?", (of.name, of.revision))
    row = db.execute("select manifest, source from revisions where id = ?", (past.revision,)).fetchone()
    name, origin = kept_ref(of, past.revision), json.loads(row[1])
    return (Record(name, past.revision, _manifest(row[0]), origin, past.at, (), past.base, of),)


def _commit(
    db: sqlite_utils.Database,
    ref: ModelRef,
    *,
    manifest: Manifest,
    origin: Mapping[str, Any],
    alias: str | None,
    now: float,
    base: ModelRef | None,
    recipes: Mapping[Digest, Recipe],
    pieces: Mapping[Digest, int],
) -> None:
    _check_names(db, ref, alias)
    if base is not None:
        _check_base(db, ref, base)
    for file in manifest.files:
        if recipe := recipes.get(file.digest):
            _insert_recipe(db, file.digest, recipe, now)
        else:
            # Whole bytes of it are here: a recipe, if there is one, has lost its own.
            db.execute("delete from recipes where digest = ?", (file.digest,))
            _insert_blobs(db, [(file.digest, file.size_bytes)], now)
    _insert_blobs(db, pieces.items(), now)
    rows = [[file.path, file.digest, file.size_bytes] for file in manifest.files]
    # The newest origin counts: it says whether pickles are allowed.
    db.execute(
        "insert into revisions (id, manifest, source, size_bytes, created_at) values (?, ?, ?, ?, ?)"
        " on conflict (id) do update set source = excluded.source",
        (manifest.digest, json.dumps(rows), json.dumps(dict(origin)), manifest.size_bytes, now),
    )
    _mean(db, ref, manifest.digest, now=now, why="added", base=base)
    if alias is not None:
        _set_alias(db, alias, ref)


def _mean(
    db: sqlite_utils.Database, ref: ModelRef, revision: Digest, *, now: float, why: str, base: ModelRef | None
) -> None:
    history.note(db, ref, revision, at=now, why=why, base=base)
    row = (ref.name, ref.revision, revision, now, None if base is None else str(base))
    db.execute("insert or replace into refs (name, label, revision, updated_at, base) values (?, ?, ?, ?, ?)", row)


def _move(
    db: sqlite_utils.Database, ref: ModelRef, beginning: str | None, now: float
) -> tuple[PastRevision, PastRevision]:
    before = next((each for each in history.past(db, ref) if each.current), None)
    if before is None:
        raise NotFound(f"cannot move {ref}: the store does not have it", code="model_not_found")
    to = history.chosen(db, ref, beginning)
    if to.current:
        raise Conflict(f"cannot move {ref} to {to.revision[:12]}: that is what it means now")
    if to.base is not None:
        _check_base(db, ref, to.base)
    _mean(db, ref, to.revision, now=now, why=f"moved back from {before.revision[:12]}", base=to.base)
    return before, to


def _check_names(db: sqlite_utils.Database, ref: ModelRef, alias: str | None) -> None:
    if db.execute("select 1 from aliases where alias = ?", (str(ref),)).fetchone():
        raise Conflict(f"cannot call a model {ref}: that is an alias of another; choose another name")
    if alias is None:
        return
    named = parse_ref(alias)
    if db.execute("select 1 from refs where name = ? and label = ?", (named.name, named.revision)).fetchone():
        raise Conflict(f"cannot use {alias} as an alias: a model has that name")


def _check_base(db: sqlite_utils.Database, ref: ModelRef, base: ModelRef) -> None:
    """What was looked up before the files came may have changed since."""
    found = db.execute("select base from refs where name = ? and label = ?", (base.name, base.revision)).fetchone()
    if found is None or found[0] is not None or base == ref:
        raise Conflict(f"cannot add {ref} as an adapter of {base}: that is no whole model of the store (any more)")
    if names := _adapters(db, ref):
        raise Conflict(f"cannot call an adapter {ref}: {', '.join(names)} are adapters of the model of that name")


def _adapters(db: sqlite_utils.Database, ref: ModelRef) -> list[str]:
    rows = db.execute("select name, label from refs where base = ? order by name, label", (str(ref),))
    return [str(ModelRef(*row)) for row in rows]


def _set_alias(db: sqlite_utils.Database, alias: str, ref: ModelRef) -> None:
    _check_names(db, ref, alias)
    db.execute("insert or replace into aliases values (?, ?, ?)", (alias, ref.name, ref.revision))


def _holdings(db: sqlite_utils.Database) -> Holdings:
    revisions = {row[0]: _manifest(row[1]) for row in db.execute("select id, manifest from revisions")}
    refs = db.execute("select name, label, revision from refs order by name, label").fetchall()
    unnamed = revisions.keys() - {revision for _, _, revision in refs}
    past: dict[str, tuple[Manifest, ...]] = {}
    for name, label, revision in db.execute("select distinct name, label, revision from history").fetchall():
        ref = str(ModelRef(name, label))
        past[ref] = (*past.get(ref, ()), revisions[revision])
        unnamed.discard(revision)
    recipes = db.execute("select digest, pieces from recipes").fetchall()
    return Holdings(
        tuple((str(ModelRef(name, label)), revisions[revision]) for name, label, revision in refs),
        tuple(revisions[each] for each in sorted(unnamed)),
        {Digest(digest): from_row(pieces) for digest, pieces in recipes},
        {Digest(digest): size for digest, size in db.execute("select digest, size_bytes from blobs")},
        past,
    )


def _blobs(db: sqlite_utils.Database) -> dict[Digest, frozenset[Digest]]:
    known = _holdings(db)
    rows = db.execute("select id, manifest from revisions").fetchall()
    return {Digest(revision): known.blobs_of(_manifest(manifest)) for revision, manifest in rows}


def _sizes(db: sqlite_utils.Database) -> dict[str, tuple[int, int]]:
    """For each revision the bytes of its files, each once, and of the blobs that no other revision has."""
    found, sizes = _blobs(db), dict(db.execute("select digest, size_bytes from blobs").fetchall())
    uses = Counter(blob for blobs in found.values() for blob in blobs)
    rows = db.execute("select id, manifest from revisions").fetchall()
    logical = {row[0]: sum({file.digest: file.size_bytes for file in _manifest(row[1]).files}.values()) for row in rows}
    own = {each: sum(sizes.get(blob, 0) for blob in blobs if uses[blob] == 1) for each, blobs in found.items()}
    return {revision: (size_bytes, own[Digest(revision)]) for revision, size_bytes in logical.items()}


def _insert_blobs(db: sqlite_utils.Database, sizes: Iterable[tuple[Digest, int]], now: float) -> None:
    for digest, size_bytes in sizes:
        row = (digest, size_bytes, now)
        db.execute("insert or ignore into blobs (digest, size_bytes, created_at) values (?, ?, ?)", row)
        db.execute("delete from away where digest = ?", (digest,))


def _insert_recipe(db: sqlite_utils.Database, digest: Digest, recipe: Recipe, now: float) -> None:
    db.execute(
        "insert or ignore into recipes (digest, size_bytes, pieces, created_at) values (?, ?, ?, ?)",
        (digest, recipe.size_bytes, to_row(recipe), now),
    )


def _drop_unwanted(db: sqlite_utils.Database) -> frozenset[Digest]:
    """Forget revisions that no ref means or has meant, recipes without a revision and blobs without either; returns
    those blobs."""
    db.execute("delete from revisions where id not in (select revision from refs union select revision from history)")
    db.execute("delete from inspections where revision not in (select id from revisions)")
    db.execute(f"delete from recipes where digest not in ({_WANTED})")
    db.execute(f"delete from away where digest not in ({_WANTED})")
    db.execute(f"delete from compared where digest not in ({_WANTED})")
    unwanted = [
        row[0]
        for row in db.execute(
            f"select digest from blobs where digest not in ({_PIECES})"
            f" and (digest not in ({_WANTED}) or digest in (select digest from recipes))"
        )
    ]
    for digest in unwanted:
        db.execute("delete from blobs where digest = ?", (digest,))
    db.execute("delete from extents where digest not in (select digest from blobs)")
    return frozenset(Digest(digest) for digest in unwanted)
