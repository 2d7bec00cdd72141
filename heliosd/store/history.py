"""What each ref has meant: rows of the state database, one for each time it began to mean a revision.

A revision stays in the store for as long as a row here names it, whether or not its ref means it now.
"""

import json
from collections.abc import Mapping

import sqlite_utils

from heliosd.core.names import Digest, ModelRef, kept_ref, parse_ref
from heliosd.errors import BadRequest, Conflict, NotFound
from heliosd.store.stored import PastRevision, describe_origin

# Of several rows of one revision SQLite takes the other columns from the one with the greatest id.
_PAST = (
    "select h.revision, max(h.id), h.at, h.why, h.base, r.source, h.revision = refs.revision"
    " from history h join revisions r on r.id = h.revision"
    " join refs on refs.name = h.name and refs.label = h.label"
    " where h.name = ? and h.label = ? group by h.revision order by max(h.id) desc"
)


Sizes = Mapping[str, tuple[int, int]]
"""For a revision, the bytes of its blobs and of those that no other revision has."""


def past(db: sqlite_utils.Database, ref: ModelRef, sizes: Sizes | None = None) -> tuple[PastRevision, ...]:
    """The revisions that the ref has meant and that are still here, the last one first; none for an unknown ref.

    Without `sizes` those are 0: they are worked out over the whole catalog.
    """
    rows = db.execute(_PAST, (ref.name, ref.revision)).fetchall()
    sizes = sizes or {}
    return tuple(
        PastRevision(
            ref=ref,
            revision=Digest(revision),
            at=at,
            why=why,
            source=describe_origin(json.loads(source)),
            current=bool(current),
            size_bytes=sizes.get(revision, (0, 0))[0],
            own_bytes=sizes.get(revision, (0, 0))[1],
            base=parse_ref(base) if base else None,
        )
        for revision, _, at, why, base, source, current in rows
    )


def all_past(db: sqlite_utils.Database) -> tuple[PastRevision, ...]:
    """The same for every ref that has meant more than it means now."""
    rows = db.execute(
        "select distinct h.name, h.label from history h join refs on refs.name = h.name and refs.label = h.label"
        " where h.revision != refs.revision order by h.name, h.label"
    ).fetchall()
    return tuple(each for name, label in rows for each in past(db, ModelRef(name, label)))


def note(
    db: sqlite_utils.Database, ref: ModelRef, revision: Digest, *, at: float, why: str, base: ModelRef | None
) -> None:
    """Write down that the ref means this from now on, unless it does already. To be called before `refs` changes."""
    now = db.execute("select revision from refs where name = ? and label = ?", (ref.name, ref.revision)).fetchone()
    what, base_name = (ref.name, ref.revision, revision), None if base is None else str(base)
    if now is None or now[0] != revision:
        row = (*what, at, why, base_name)
        db.execute("insert into history (name, label, revision, at, why, base) values (?, ?, ?, ?, ?, ?)", row)
    else:
        db.execute("update history set base = ? where name = ? and label = ? and revision = ?", (base_name, *what))


def chosen(db: sqlite_utils.Database, ref: ModelRef, beginning: str | None) -> PastRevision:
    """The one revision of the ref that begins so, or the one that it meant before.

    Raises NotFound and BadRequest.
    """
    found = past(db, ref)
    if beginning is None:
        before = [each for each in found if not each.current]
        if not before:
            raise NotFound(
                f"cannot go back with {ref}: the store has only the revision that it means now",
                code="revision_not_found",
            )
        return before[0]
    fitting = [each for each in found if each.revision.startswith(beginning)]
    if not fitting:
        raise NotFound(
            f"cannot find revision {beginning} of {ref}: the store does not have it (any more); "
            f"`heliosctl revisions {ref}` lists those it has",
            code="revision_not_found",
        )
    if len(fitting) > 1:
        raise ambiguous(ref, beginning, [each.revision for each in fitting])
    return fitting[0]


def ambiguous(ref: ModelRef, beginning: str, found: list[Digest]) -> BadRequest:
    names = ", ".join(str(kept_ref(ref, revision)) for revision in found)
    return BadRequest(f"cannot tell which revision of {ref.name} {beginning} means: {names} begin so; give more digits")


def named(db: sqlite_utils.Database, name: str, beginning: str) -> PastRevision | None:
    """The revision that any ref of this name, or the one behind an alias, has meant. Raises BadRequest when several
    begin so."""
    target = db.execute("select name from aliases where alias = ?", (name,)).fetchone()
    rows = db.execute(
        "select distinct h.name, h.label, h.revision from history h join refs using (name, label)"
        " where h.name = ? and substr(h.revision, 1, ?) = ? order by h.label != 'main', h.label",
        (target[0] if target else name, len(beginning), beginning),
    ).fetchall()
    if not rows:
        return None
    if len({row[2] for row in rows}) > 1:
        raise ambiguous(ModelRef(name), beginning, sorted({Digest(row[2]) for row in rows}))
    return chosen(db, ModelRef(rows[0][0], rows[0][1]), rows[0][2])


def forget(db: sqlite_utils.Database, ref: ModelRef, revision: Digest) -> None:
    """Let go of a revision that the ref meant earlier. Raises Conflict when it means it now."""
    row = (ref.name, ref.revision, revision)
    if db.execute("select 1 from refs where name = ? and label = ? and revision = ?", row).fetchone():
        raise Conflict(f"cannot forget revision {revision[:12]} of {ref}: that is what it means now")
    db.execute("delete from history where name = ? and label = ? and revision = ?", row)
