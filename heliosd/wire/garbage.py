"""What is tidied out of the store, and what stays and why."""

from typing import Literal

from pydantic import Field

from heliosd.wire.base import Asked, Wire


class CollectGarbage(Asked):
    """Remove what nobody needs any more."""

    dry_run: bool = Field(False, description="only tell what would go")
    interrupted_s: float = Field(
        7 * 86_400.0, ge=0, description="downloads interrupted for so long go; those under way never do"
    )


class GarbageItem(Wire):
    kind: Literal["revision", "download", "blobs", "directory"]
    name: str
    size_bytes: int = Field(description="what its going frees; of what stays, what only it has")
    why: str


class GarbageView(Wire):
    dry_run: bool
    goes: list[GarbageItem]
    stays: list[GarbageItem] = Field(description="what is near going, and why it stays")
    freed_bytes: int = Field(description="with `dry_run`: what would be freed")
