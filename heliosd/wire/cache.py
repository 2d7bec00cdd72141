"""What models take on the disk, and what they share."""

from pydantic import Field

from heliosd.wire.base import Wire


class CachedModel(Wire):
    ref: str
    logical_bytes: int = Field(description="of its files, as if nothing was shared")
    alone_bytes: int = Field(description="what it takes on the disk that no other model uses")
    shared_bytes: int = Field(description="what it takes on the disk that others use too")
    frees_bytes: int = Field(
        description="what removing it frees now: of what it alone uses all that is not in use, and its unfinished "
        "download"
    )


class CacheView(Wire):
    models: list[CachedModel]
    logical_bytes: int = Field(description="of all models' files, as if nothing was shared")
    physical_bytes: int = Field(description="of what is on the disk for them")
    whole_bytes: int = Field(0, description="of files put together for engines that read whole files only, besides")
    ratio: float = Field(description="physical to logical")


class SharedView(Wire):
    files: int = Field(description="files that are made of pieces of others from now on")
    logical_bytes: int = Field(description="of those files")
    freed_bytes: int
    in_use: int = Field(description="files left as they are because they are in use")
