"""Where things lie under the store's root. Paths only; nothing here touches the disk.

    blobs/sha256/ab/<digest>   one file's bytes, read-only, named by what they are
    incoming/                  what is being written; nothing in it counts until it is renamed out of it
    revisions/<digest>/        a revision as a directory of links, file names and sub-folders kept; `X.recipe` stands
                               for a file X that is made of pieces of blobs
    away/<digest>              the header of weights that were let go, in a file of the same size that is empty else
    whole/                     such files put together, for engines that read whole files only; for as long as they do
    lock                       held by the one daemon that uses this store

The links are relative symbolic links. Engines open them like files (the Hub's own cache is made the same way, so
every loader is used to it); the root can be moved or mounted elsewhere; a link shows which blob it means, and when a
blob is gone it dangles and fails loudly. Hard links would need every blob on one file system, stop at 65,000 per
blob on ext4, and hide in `du` and backups what is shared.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from heliosd.core.names import Digest


@dataclass(frozen=True, slots=True)
class Layout:
    root: Path

    @property
    def blobs(self) -> Path:
        return self.root / "blobs" / "sha256"

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    @property
    def revisions(self) -> Path:
        return self.root / "revisions"

    @property
    def whole(self) -> Path:
        return self.root / "whole"

    @property
    def stubs(self) -> Path:
        return self.root / "away"

    def stub(self, digest: Digest) -> Path:
        return self.stubs / digest

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def blob(self, digest: Digest) -> Path:
        return self.blobs / digest[:2] / digest

    def part(self, key: str) -> Path:
        """The unfinished bytes of what `key` names: a sha256, or `git-` and a git blob id."""
        return self.incoming / f"{key}.part"

    def part_journal(self, key: str) -> Path:
        return self.incoming / f"{key}.journal"

    def revision(self, digest: Digest) -> Path:
        return self.revisions / digest

    def link_text(self, revision: Digest, path: str, blob: Digest) -> str:
        """What the link at `path` of the revision says: the way from there to the blob."""
        return os.path.relpath(self.blob(blob), (self.revision(revision) / path).parent)
