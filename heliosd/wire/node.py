"""The node itself, its peers, its keys and its checks."""

from typing import Literal

from pydantic import Field

from heliosd.wire.base import Asked, Wire
from heliosd.wire.devices import DeviceView
from heliosd.wire.replicas import PriorityWord, QueueView, ReplicaView


class ShellsView(Wire):
    """Processes made ahead of need, for starts to begin in."""

    wanted: int
    waiting: int
    making: bool
    own_bytes: int = Field(description="of host memory, besides what they share")
    why: str = Field("", description="why there are fewer than wanted")


PeriodWord = Literal["day", "month"]


class EngineKindView(Wire):
    kind: str
    version: str | None
    state: str = Field(description="cold, warming, warm or failed")
    detail: str | None = None
    shells: ShellsView | None = Field(None, description="none: this kind of engine has none")


class NodeView(Wire):
    name: str
    version: str
    state: str = Field(description="starting, running or draining")
    started_at: float
    uptime_s: float
    pid: int
    engines: list[EngineKindView]
    config_files: list[str]
    state_dir: str
    warnings: list[str] = []


class MemberView(Wire):
    name: str
    state: str = Field(description="self, alive, suspect, dead or left")
    address: str
    api_url: str | None = None
    version: str | None = None
    models: list[str] = []
    ready: list[str] = Field([], description="of its models, those that are ready; at most the twelve latest used")
    free_bytes: int | None = Field(None, description="of its freest device, as it last told, in whole GiB")
    queue_length: int = Field(0, description="requests that wait there, up to the next power of two")


class Snapshot(Wire):
    """All the TUI shows, as the first event of the feed and after each change."""

    node: NodeView
    devices: list[DeviceView]
    replicas: list[ReplicaView]
    queue: list[QueueView]


class AddKey(Asked):
    name: str = Field(min_length=1, max_length=64)
    admin: bool = False
    priority: PriorityWord = Field("normal", description="class of its requests; normal leaves it to the model")
    share: float = Field(1.0, ge=0.001, le=1000, description="of the fair share, beside other keys that wait")
    budget: float = Field(0.0, ge=0, le=1e12, description="what it may spend in a period, by `prices`; 0: no limit")
    budget_period: PeriodWord = Field("month", description="day or month, of UTC")
    tokens_per_day: int = Field(0, ge=0, le=10**15, description="of prompts and answers together; 0: no limit")


class ChangeKey(Asked):
    """What is left out stays as it is."""

    priority: PriorityWord | None = None
    share: float | None = Field(None, ge=0.001, le=1000)
    budget: float | None = Field(None, ge=0, le=1e12, description="0: no limit any more")
    budget_period: PeriodWord | None = None
    tokens_per_day: int | None = Field(None, ge=0, le=10**15, description="0: no limit any more")


class KeyView(Wire):
    id: str
    name: str
    admin: bool
    created_at: float
    priority: PriorityWord = "normal"
    share: float = 1.0
    budget: float = Field(0.0, description="what it may spend in a period; 0: no limit")
    budget_period: PeriodWord = "month"
    tokens_per_day: int = Field(0, description="0: no limit")
    secret: str | None = Field(None, description="shown once, when the key is made")


class CheckView(Wire):
    """One finding of `heliosctl doctor`."""

    name: str
    ok: bool
    message: str
    advice: str | None = None


class SpeedView(Wire):
    method: str = Field(description="a load format, or read and direct (past the page cache) for comparison")
    cold_bytes_per_s: float | None = Field(None, description="from the disk")
    warm_bytes_per_s: float | None = Field(None, description="from the page cache")
    note: str | None = Field(None, description="what was in the way")


class StorageView(Wire):
    """What `heliosctl doctor --storage` measured."""

    file: str
    size_bytes: int
    speeds: list[SpeedView]
    load_format: str = Field(description="what engines use from now on, where the operator set none")


class MemberList(Wire):
    members: list[MemberView]


class CheckList(Wire):
    checks: list[CheckView]


class KeyList(Wire):
    keys: list[KeyView]
