"""What a route is. One table of them drives the router, the documentation and openapi.json."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from aiohttp import web
from pydantic import BaseModel

from heliosd.api.parts import Parts
from heliosd.wire import ChangePlan

Handler = Callable[[web.Request, Parts], Awaitable[web.StreamResponse]]

Preview = Callable[[web.Request, Parts], Awaitable[ChangePlan]]
"""Says what a handler would do, and does nothing. Raises what the handler would raise."""


class Scope(StrEnum):
    """Who may use a route; `api.auth` decides."""

    OPEN = "open"
    """Anybody who can connect: probes and metrics."""
    USE = "use"
    """Inference."""
    ADMIN = "admin"
    PEERS = "peers"
    """Admins, and the other nodes of the cluster."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter."""

    name: str
    kind: Literal["string", "integer", "boolean"]
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers: a model as JSON, events of named models, or plain text."""

    text: str
    model: type[BaseModel] | None = None
    events: tuple[tuple[str, type[BaseModel]], ...] = ()
    """For an event stream: each event's name and what its data is."""
    media: str = "application/json"
    other: type[BaseModel] | None = None
    """The model of some answers, as the text says."""


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    """As aiohttp matches it: `/helios/v1/models/{ref:.+}`."""
    handler: Handler
    scope: Scope
    summary: str
    answer: Answer
    body: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    detail: str = ""
    """More than the summary, where that is needed."""
    group: str = "admin"
    errors: tuple[str, ...] = ()
    """`code`s worth telling, besides those any route may answer."""
    preview: Preview | None = None
    """Of a route that changes something: its dry run. With it come audit and idempotency keys, see `api.changes`."""
    reads: bool = False
    """A POST that changes nothing."""

    def __post_init__(self) -> None:
        if self.changes and self.preview is None:
            raise TypeError(f"cannot offer {self.method} {self.path}: it changes something and has no dry run")
        if self.preview is not None and not self.changes:
            raise TypeError(f"cannot offer {self.method} {self.path}: it has a dry run and changes nothing")

    @property
    def changes(self) -> bool:
        """Whether it changes something of the node: all but inference, GET and what only calculates."""
        return self.method not in ("GET", "HEAD") and self.group == "admin" and not self.reads
