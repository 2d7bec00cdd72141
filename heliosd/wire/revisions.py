"""What a ref has meant: its revisions, going back to one, and what differs between two."""

from typing import Any, Literal

from pydantic import Field

from heliosd.wire.base import Asked, Wire


class RevisionView(Wire):
    ref: str = Field(description="what to ask for to get this revision: `org/name@1a2b3c4d5e6f`")
    revision: str = Field(description="sha256 of the manifest")
    at: float = Field(description="seconds since the epoch: when the ref last began to mean it")
    why: str = Field(description="`added`, or how else that came about")
    source: str
    current: bool = Field(description="whether the ref means it now")
    kept: bool = Field(description="whether it stays when garbage is collected")
    size_bytes: int = Field(description="each file's content once")
    own_bytes: int = Field(description="of that, what no other revision in the store has")
    shared_bytes: int = Field(description="the rest")
    used_by: list[str] = Field([], description="replicas that run it")


class RevisionList(Wire):
    model: str
    keep: int = Field(description="how many stay when garbage is collected")
    revisions: list[RevisionView] = Field(description="what it means now or meant last first")


class Rollback(Asked):
    """Let a model mean an earlier revision again."""

    to: str | None = Field(None, description="at least 8 digits of its digest; default: what it meant before")


class RolledBack(Wire):
    model: str
    before: str = Field(description="the revision that it meant until now")
    revision: str = Field(description="the revision that it means from now on")


class Compare(Asked):
    """Compare two models, or two revisions of one."""

    model: str = Field(description="org/name or org/name@1a2b3c4d")
    other: str | None = Field(
        None,
        description="compare with this; default: what an earlier revision's ref means now, and for a model, what it "
        "meant before with what it means now",
    )


class FileDifferenceView(Wire):
    path: str
    change: Literal["added", "removed", "changed"]
    before_bytes: int | None = None
    after_bytes: int | None = None


class TensorDifferenceView(Wire):
    name: str = Field(description="with the folder of its file in front, where there are folders")
    change: Literal["added", "removed", "dtype", "shape", "bytes"]
    before: str | None = Field(None, description="such as `BF16 [64, 64]`")
    after: str | None = None
    size_bytes: int


class KeyDifferenceView(Wire):
    file: str
    key: str = Field(description="of nested objects, with dots")
    change: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None


class DifferenceView(Wire):
    before: str
    after: str
    files: list[FileDifferenceView]
    tensors: list[TensorDifferenceView]
    keys: list[KeyDifferenceView] = Field(description="of the configurations, key by key")
    equal_files: int
    equal_tensors: int
