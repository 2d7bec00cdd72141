"""A blob's place: a file of the store, or there a link to the file on the slower volume (see `tiers/`). Synchronous."""

import stat
from pathlib import Path


def size_of(path: Path) -> int | None:
    """Bytes of the blob at `path`, wherever they are; None when they are not."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def elsewhere(path: Path) -> Path | None:
    """Where the bytes are when the store has only a link to them."""
    try:
        if not stat.S_ISLNK(path.lstat().st_mode):
            return None
        target = path.readlink()
    except OSError:
        return None
    # Nobody but `tiers/` makes links here; a link to anything else is not ours to follow with an unlink.
    return target if target.name == path.name and target.is_absolute() else None


def remove(path: Path) -> int:
    """Remove a blob and what its link means; returns the bytes freed. The link goes first: who is killed in between
    leaves bytes that no link means, which the next start sweeps up, and never a link without bytes."""
    size_bytes, target = size_of(path), elsewhere(path)
    path.unlink(missing_ok=True)
    if target is not None:
        target.unlink(missing_ok=True)
    return size_bytes or 0
