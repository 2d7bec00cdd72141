"""Claims: what an unfinished download wants kept, so that a restart sweeps up everything else and not this.

A claim is one small file under `incoming/`. It is written once the files are listed and dropped when the model is
committed, given up for good, or older than `MAX_AGE_S`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heliosd.core.names import Digest, parse_digest
from heliosd.store.durable import write_file
from heliosd.store.layout import Layout
from heliosd.store.ranged_part import allocated_bytes
from heliosd.store.threads import Threads

MAX_AGE_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Claim:
    ref: str
    listed: frozenset[str]
    """Sha256 digests (parts and blobs) and `git-…` keys (parts)."""
    at: float
    """Seconds since the epoch."""
    found: Mapping[str, Digest] = field(default_factory=dict)
    """The blobs that files listed by a `git-…` key turned out to be."""

    @property
    def keys(self) -> frozenset[str]:
        """All that is to stay."""
        return self.listed.union(self.found.values())


class Claims:
    def __init__(self, layout: Layout, threads: Threads) -> None:
        self._layout = layout
        self._threads = threads

    def path(self, ref: str) -> Path:
        return self._layout.incoming / f"{hashlib.sha256(ref.encode()).hexdigest()[:32]}.claim"

    async def write(self, claim: Claim) -> None:
        """Make the claim; an earlier one for the same ref is replaced."""
        content = json.dumps(
            {"ref": claim.ref, "keys": sorted(claim.listed), "at": claim.at, "found": dict(claim.found)}
        )
        await self._threads.run(write_file, self.path(claim.ref), content.encode())

    async def of(self, ref: str) -> Claim | None:
        """The claim for this ref, however old."""
        return await self._threads.run(_read, self.path(ref))

    async def drop(self, ref: str) -> None:
        """Give up the claim, but leave what it kept."""
        await self._threads.run(self.path(ref).unlink, missing_ok=True)

    async def parts_bytes(self, claim: Claim, now: float) -> int:
        """What giving up the claim would free."""
        others = {key for other in await self.all(now) if other.ref != claim.ref for key in other.keys}
        return await self._threads.run(self._parts_bytes, claim.keys - others)

    def _parts_bytes(self, keys: frozenset[str]) -> int:
        parts = (self._layout.part(key) for key in keys)
        return sum(map(allocated_bytes, parts))

    async def give_up(self, claim: Claim, now: float) -> int:
        """Drop the claim and the parts that no other claim wants; returns the bytes freed. Blobs are not touched."""
        await self.drop(claim.ref)
        others = {key for other in await self.all(now) for key in other.keys}
        return await self._threads.run(self._remove_parts, claim.keys - others)

    def _remove_parts(self, keys: frozenset[str]) -> int:
        freed_bytes = 0
        for key in keys:
            part = self._layout.part(key)
            freed_bytes += allocated_bytes(part)
            part.unlink(missing_ok=True)
            self._layout.part_journal(key).unlink(missing_ok=True)
        return freed_bytes

    async def all(self, now: float, max_age_s: float = MAX_AGE_S) -> tuple[Claim, ...]:
        """The claims that still count; unreadable and old ones do not."""
        return await self._threads.run(self._all, now, max_age_s)

    async def parts(self) -> dict[str, int]:
        """Bytes of every unfinished file, by its key."""
        return await self._threads.run(
            lambda: {path.stem: allocated_bytes(path) for path in self._layout.incoming.glob("*.part")}
        )

    def _all(self, now: float, max_age_s: float) -> tuple[Claim, ...]:
        found = (_read(path) for path in self._layout.incoming.glob("*.claim"))
        return tuple(claim for claim in found if claim is not None and now - claim.at < max_age_s)


def _read(path: Path) -> Claim | None:
    try:
        content = json.loads(path.read_bytes())
        found = {str(key): parse_digest(digest) for key, digest in content.get("found", {}).items()}
        return Claim(str(content["ref"]), frozenset(map(str, content["keys"])), float(content["at"]), found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
