"""Models of the store, their aliases and pins."""

from typing import Any, Literal

from pydantic import Field

from heliosd.wire.base import Asked, Wire
from heliosd.wire.estimates import EstimateView


class FileView(Wire):
    path: str
    digest: str
    size_bytes: int


class ModelView(Wire):
    """A ref the store knows."""

    ref: str
    revision: str = Field(description="sha256 of the manifest")
    size_bytes: int
    source: str = Field(description="hub, directory or gguf, and where from")
    created_at: float = Field(description="seconds since the epoch")
    aliases: list[str] = []
    state: str = Field("stored", description="stored, or the state of its replica; of an adapter: of its base's")
    architecture: str | None = None
    parameters: int | None = None
    max_model_len: int | None = None
    peer: str | None = Field(None, description="set when only that peer holds it")
    base: str | None = Field(None, description="of an adapter: the model it is for, whose replica serves it")
    tier: str | None = Field(None, description="where its files are: host, nvme, disk, or two of them")
    adapter_rank: int | None = Field(None, description="of an adapter: the highest of its matrices")


class ModelManifest(Wire):
    """What another node needs to know to fetch a model."""

    ref: str
    revision: str = Field(description="sha256 of the list of files")
    files: list[FileView]
    size_bytes: int
    origin: dict[str, Any] = Field({}, description="of a hub's model: repository, commit and endpoint")
    base: str | None = Field(None, description="of an adapter: the model it is for")
    created_at: float = Field(0.0, description="seconds since the epoch")


class ModelDetail(ModelView):
    files: list[FileView]
    dtype: str | None = None
    kv_bytes_per_token: int | None = None
    settings: dict[str, Any] = {}
    estimate: "EstimateView | None" = None


class AddModel(Asked):
    """Bring a model into the store."""

    source: Literal["hub", "directory", "gguf"]
    location: str = Field(description="a hub repository, or an absolute path on the daemon's machine")
    ref: str | None = Field(None, description="what to call it; default: after the repository or folder")
    revision: str | None = Field(None, description="hub only: branch, tag or commit")
    alias: str | None = None
    allow_pickle: bool = False
    anyway: bool = Field(False, description="hub only: fetch it although no device here could ever hold it")
    base: str | None = Field(
        None, description="for an adapter: the model of the store it is for; default: what its configuration names"
    )


class SetAlias(Asked):
    """Let an alias mean a model."""

    ref: str = Field(description="a model of this node's store, or another alias of it")


class PinModel(Asked):
    replicas: int = Field(1, ge=1, le=64, description="how many to keep ready")


class PinView(Wire):
    model: str
    replicas: int


class PinList(Wire):
    pins: list[PinView]


class AliasView(Wire):
    alias: str
    ref: str = Field(description="the model itself")


class ProgressView(Wire):
    """One line of a long operation, as an SSE `progress` event."""

    phase: str = Field(description="list, fetch, convert, verify, commit, compare")
    item: str | None = None
    done_bytes: int = 0
    total_bytes: int | None = None
    rate_bytes_per_s: float | None = Field(None, description="of late, without what was here already")
    eta_s: float | None = Field(None, description="until all bytes of this phase are done, at that rate")


class Removed(Wire):
    ref: str
    freed_bytes: int


class ModelList(Wire):
    models: list[ModelView]
