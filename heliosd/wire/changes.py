"""What a change would do (dry run), who changed what (audit), and the bodies of an operator's changes."""

from typing import Any, Literal

from pydantic import Field

from heliosd.wire.base import Asked, Wire
from heliosd.wire.replicas import ReplicaView


class ChangeStep(Wire):
    """One thing that would be done."""

    what: str = Field(description="start, stop, sleep, wake, remove, write, …")
    subject: str
    devices: list[str] = []
    frees_bytes: int = Field(0, description="on all its devices, or on the disk")
    takes_bytes: int = 0
    seconds: float | None = Field(None, description="until it is done, as far as earlier times tell")
    costs_s: float | None = Field(None, description="what it takes to have it back")
    reason: str


class ChangePlan(Wire):
    """The answer to a dry run: what would be done. Nothing was."""

    dry_run: bool = True
    summary: str
    steps: list[ChangeStep] = Field([], description="in their order; none: it is so already")
    frees_bytes: int = 0
    takes_bytes: int = 0
    seconds: float | None = Field(None, description="of all steps, where that is known of one at least")


class AuditEntry(Wire):
    """One changing call of the admin API."""

    id: int
    at: float = Field(description="seconds since the epoch, when it was over")
    who: str = Field(description="`key NAME`, `uid N` over the Unix socket, `node NAME`, or nobody")
    what: str = Field(description="method and path")
    body: Any = Field(None, description="without secrets")
    why: str | None = Field(None, description="`X-Helios-Reason`")
    result: str = Field(description="done, planned (a dry run), repeated, refused, failed or left")
    status: int = Field(description="of the answer; 499: the client left before it")
    code: str | None = None
    message: str | None = Field(None, description="of the error")
    took_s: float
    idempotency_key: str | None = None
    ticket: str | None = None


class AuditList(Wire):
    entries: list[AuditEntry]


class EvictReplicas(Asked):
    to: Literal["auto", "sleep", "stop"] = Field("auto", description="auto: to sleep where the engine can, else stop")


class EvictedReplicas(Wire):
    evicted: list[str]
    plan: ChangePlan = Field(description="what it freed and costs, as it was reckoned before")


class MoveReplicas(Asked):
    devices: list[str] = Field(min_length=1, max_length=64, description="where it may run from now on")


class MovedReplicas(Wire):
    stopped: list[str]
    replica: ReplicaView


class DrainAsked(Asked):
    """One of `device` and `replica`, or neither: the node."""

    device: str | None = None
    replica: str | None = Field(None, description="a replica's id, or a model: all its replicas")


class DrainView(Wire):
    node: bool = Field(description="it takes no requests, until its drain is ended")
    devices: list[str] = Field(description="nothing is started there, until their drain is ended")
    stopped: list[str] = []


class ChangeLimits(Asked):
    """What is left out stays as it is."""

    max_num_seqs: int | None = Field(None, gt=0, le=65536, description="requests at once")
    kv_cache_bytes: int | None = Field(None, gt=0, description="per device")
    max_model_len: int | None = Field(None, gt=0, le=100_000_000, description="tokens")


class LimitChange(Wire):
    replica: str
    limit: Literal["max_num_seqs", "kv_cache_bytes", "max_model_len"]
    before: int | None
    after: int
    how: Literal["now", "restart"] = Field(description="restart: its engine cannot change it while it runs")
    replaced_by: str | None = Field(None, description="the replica that was started instead")


class LimitsView(Wire):
    model: str
    changes: list[LimitChange]


class LogLevel(Asked):
    level: Literal["debug", "info", "warning", "error"]


class LogLevelView(Wire):
    level: str
    before: str


class ReloadedView(Wire):
    changed: list[str] = Field(description="keys that took effect")
    needs_restart: list[str] = Field(description="keys that differ and wait for a restart")
