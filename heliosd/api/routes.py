"""What a route is. One table of them drives the router, the documentation and openapi.json."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from aiohttp import web
from pydantic import BaseModel

from heliosd.api.parts import Parts

Handler = Callable[[web.Request, Parts], Awaitable[web.StreamResponse]]


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
