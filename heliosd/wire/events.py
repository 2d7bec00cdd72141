"""The journal, and what is explained from it."""

from typing import Any, Literal

from pydantic import Field

from heliosd.wire.base import Wire
from heliosd.wire.devices import FootprintView
from heliosd.wire.estimates import EstimateView
from heliosd.wire.replicas import ReplicaView


class EventView(Wire):
    """A line of the journal, or a state change on the feed (then `id` is 0 and nothing is stored)."""

    id: int
    at: float = Field(description="seconds since the epoch")
    kind: str
    message: str
    ticket: str | None = None
    model: str | None = None
    replica: str | None = None
    detail: dict[str, Any] = {}


class StepView(Wire):
    """One thing that was said to a request."""

    after_s: float = Field(description="since it arrived")
    kind: str = Field(description="hold, grant, forward, refuse or released")
    reason: str
    position: int | None = Field(None, description="requests before it, as it looked then")
    eta_s: float | None = Field(None, description="seconds until it is served, as it looked then")


class StartView(Wire):
    """The start of a replica, as the journal has it."""

    replica: str
    reason: str
    devices: list[str]
    began_at: float = Field(description="seconds since the epoch")
    took_s: float | None = Field(None, description="until it was ready; none: it is not, or never was")
    phases: dict[str, float] = Field({}, description="seconds of each")


class RequestStory(Wire):
    model: str | None
    state: Literal["waiting", "served", "over", "forwarded", "refused"]
    arrived_at: float = Field(description="seconds since the epoch")
    waited_s: float = Field(description="until it was answered, or until now")
    served_s: float | None = Field(None, description="from the grant to its end")
    steps: list[StepView]
    replica: str | None = None
    waited_for: StartView | None = Field(None, description="the start that ended while it waited")
    position: int | None = Field(None, description="requests before it now")
    eta_s: float | None = None
    code: str | None = Field(None, description="of the refusal")
    cause: str | None = None


class BarredView(Wire):
    """Devices where a model failed and is not started for a while."""

    devices: list[str]
    failures: int = Field(description="in a row")
    retry_in_s: float
    cause: str


class AppetiteView(Wire):
    """How much a model is asked for, and what it costs to have it again."""

    asked_per_minute: float = Field(description="to be expected, by how often it was asked for lately")
    reuse_ratio: float = Field(description="probability of a request within horizon_s")
    horizon_s: float
    reload_s: float | None = Field(None, description="seconds of its last start here")
    wake_s: float | None = None
    lease_s: float | None = Field(None, description="seconds that a request is worked on")
    waiting: int
    barred: list[BarredView] = []
    tier: str | None = Field(None, description="the slowest that its files have to be read from")
    read_s: float | None = Field(None, description="seconds of reading them from where they are")
    at_once: int | None = Field(None, description="requests at once to be expected at most; none: nobody knows yet")


class ModelStory(Wire):
    estimate: EstimateView | None = Field(None, description="what a replica would take now, and whether it fits")
    replicas: list[ReplicaView]
    appetite: AppetiteView | None = Field(None, description="none: nobody has asked for it")
    failure: EventView | None = Field(None, description="the last one noted")


class RivalView(Wire):
    replica: str
    model: str
    loss_s: float
    frees_bytes: int


class WorthView(Wire):
    """What the loss of a replica would cost, and when its turn comes to make room."""

    loss_s: float = Field(description="seconds of waiting to be expected: reuse_ratio times slower_s")
    slower_s: float = Field(description="by so much longer it would take to have it back")
    frees_bytes: int = Field(description="on each of its devices")
    sleeps: bool = Field(description="it would be put to sleep rather than stopped")
    rank: int | None = Field(description="1: the next to go; none: it is not asked to go")
    of: int
    protected: str | None = None
    before: list[RivalView] = Field([], description="those that go sooner")


class ReplicaStory(Wire):
    model: str | None
    start: StartView | None = None
    predicted: FootprintView | None = None
    measured: FootprintView | None = None
    running: ReplicaView | None = Field(None, description="none: it has ended")
    appetite: AppetiteView | None = None
    worth: WorthView | None = None
    ended: EventView | None = None


class Explanation(Wire):
    subject: str
    request: RequestStory | None = None
    model: ModelStory | None = None
    replica: ReplicaStory | None = None
    events: list[EventView]


class EventList(Wire):
    events: list[EventView]
