"""What a start removes: everything that no model and no unfinished download lays claim to."""

import logging
import shutil
from dataclasses import dataclass

from heliosd.core.names import Digest
from heliosd.store.blobs import Blobs
from heliosd.store.catalog import Catalog
from heliosd.store.claims import Claims
from heliosd.store.layout import Layout
from heliosd.store.revisions import Revisions
from heliosd.store.threads import Threads

log = logging.getLogger("heliosd.store")


@dataclass(frozen=True, slots=True)
class Swept:
    parts: int
    blobs: int
    directories: int
    freed_bytes: int
    missing: frozenset[Digest]
    """Blobs that the catalog knows and the disk does not have: a fault, not rubbish."""


async def sweep(
    *,
    layout: Layout,
    blobs: Blobs,
    revisions: Revisions,
    catalog: Catalog,
    claims: Claims,
    threads: Threads,
    now: float,
) -> Swept:
    """Clean up after a crash. Nothing else may use the store meanwhile."""
    known = await catalog.digests()
    found_claims = await claims.all(now)
    claimed = frozenset(key for claim in found_claims for key in claim.keys)
    kept = {claims.path(claim.ref).name for claim in found_claims}
    await threads.run(shutil.rmtree, layout.whole, ignore_errors=True)
    parts = await threads.run(_sweep_incoming, layout, kept, claimed)
    here = await blobs.all()
    unwanted = here - known - claimed
    freed_bytes = await blobs.delete(unwanted, catalog.digests)
    stale = await revisions.all() - await catalog.revisions()
    for name in stale:
        await revisions.remove(Digest(name))
    swept = Swept(parts, len(unwanted), len(stale), freed_bytes, frozenset(known - here))
    if parts or unwanted or stale:
        log.info(
            "store swept",
            extra={"parts": parts, "blobs": swept.blobs, "directories": len(stale), "freed_bytes": freed_bytes},
        )
    if swept.missing:
        log.error("blobs are missing from the store", extra={"digests": ",".join(sorted(swept.missing))})
    return swept


def _sweep_incoming(layout: Layout, kept: set[str], claimed: frozenset[str]) -> int:
    removed = 0
    for path in layout.incoming.iterdir():
        resumable = path.suffix in (".part", ".journal") and path.stem in claimed
        if path.name in kept or resumable:
            continue
        removed += 1
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return removed
