"""Knows which models each peer holds: fetches a peer's list when its hash in the gossip changes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import aiohttp
from pydantic import BaseModel

from heliosd.cluster.asking import Question, ask
from heliosd.cluster.member import Member, ready_of
from heliosd.core.names import PeerName, parse_ref
from heliosd.core.peer_news import PeerNews
from heliosd.errors import HeliosError

log = logging.getLogger("heliosd.cluster")

Holds = Mapping[PeerName, frozenset[str]]

CATALOGUE_TARGET = "/helios/v1/models?local=1"
FETCH_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 32 * 1024**2
AT_ONCE = 8
"""When a hundred nodes start together, their lists do not all come at once."""
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 60.0


@dataclass(slots=True)
class _Known:
    """What is known of one present peer."""

    member: Member
    models: frozenset[str] | None = None
    """None until its list was fetched for the first time."""
    models_hash: str | None = None
    fetching: asyncio.Task[None] | None = field(default=None)


class Catalogues:
    """The one owner of what peers hold. `publish` is told whenever what routable peers hold has changed, `report`
    whenever what they say of their load has, always of models that are known by then."""

    def __init__(
        self,
        fetch: Callable[[Member], Awaitable[frozenset[str]]],
        publish: Callable[[Holds], None],
        *,
        report: Callable[[tuple[PeerNews, ...]], None] = lambda news: None,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        self._fetch = fetch
        self._publish = publish
        self._report = report
        self._first_retry_s = first_retry_s
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._known: dict[PeerName, _Known] = {}
        self.holds: Holds = MappingProxyType({})
        self._news: tuple[PeerNews, ...] = ()

    def note(self, member: Member, tasks: asyncio.TaskGroup) -> None:
        """Take in a member's news; fetches, if there is something to fetch, as a task of `tasks`."""
        known = self._known.get(member.name)
        if not member.present:
            if known is not None:
                self._known.pop(member.name)
                _stop(known)
        else:
            if known is None:
                known = self._known[member.name] = _Known(member)
            moved = (known.member.catalogue, known.member.api_url) != (member.catalogue, member.api_url)
            known.member = member
            if member.api_url is not None and (moved or known.fetching is None):
                self._refresh(known, tasks)
        self._tell()

    def forget(self) -> None:
        """The cluster was lost: nothing is known of anybody, and nothing is fetched any more."""
        for known in self._known.values():
            _stop(known)
        self._known.clear()
        self._tell()

    def _refresh(self, known: _Known, tasks: asyncio.TaskGroup) -> None:
        _stop(known)
        if known.models_hash != known.member.catalogue:
            known.fetching = tasks.create_task(self._bring(known), name=f"catalogue of {known.member.name}")

    async def _bring(self, known: _Known) -> None:
        """Fetch until it worked; cancelled when the peer goes or has newer news."""
        retry_s = self._first_retry_s
        while True:
            member = known.member
            try:
                async with self._turns:
                    models = await self._fetch(member)
            except HeliosError as error:
                log.warning(
                    "peer's models not known yet",
                    extra={"peer": member.name, "error": error.message, "cause": error.cause, "retry_s": retry_s},
                )
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
                continue
            known.models, known.models_hash, known.fetching = models, member.catalogue, None
            log.info("peer's models known", extra={"peer": member.name, "models": len(models)})
            self._tell()
            return

    def _tell(self) -> None:
        holds = {
            name: known.models
            for name, known in sorted(self._known.items())
            if known.models is not None and known.member.routable
        }
        if holds != self.holds:
            self.holds = MappingProxyType(holds)
            self._publish(self.holds)
        members = {name: self._known[name].member for name in holds}
        news = tuple(
            PeerNews(name, ready_of(member, holds[name]), member.load.free_bytes, member.load.queue_length)
            for name, member in members.items()
            if member.load.free_bytes is not None
        )
        if news != self._news:
            self._news = news
            self._report(news)


def _stop(known: _Known) -> None:
    if known.fetching is not None:
        known.fetching.cancel()
        known.fetching = None


class _HeldModel(BaseModel):
    ref: str
    aliases: list[str] = []


class _Answer(BaseModel):
    """Of the peer's answer only what is needed, so that other versions of Helios are understood."""

    models: list[_HeldModel]


async def fetch_models(
    session: aiohttp.ClientSession, member: Member, *, token: str, limit_bytes: int = MAX_ANSWER_BYTES
) -> frozenset[str]:
    """Ask a member for the names, aliases included, of the models in its own store.

    Raises SourceFailed when it does not answer in time, or not with a list of models.
    """
    question = Question(CATALOGUE_TARGET, "list the models of", FETCH_TIMEOUT_S, limit_bytes)
    return await ask(session, member, question, _names, token=token)


def _names(body: bytes) -> frozenset[str]:
    answer = _Answer.model_validate_json(body)
    return frozenset(str(parse_ref(name)) for held in answer.models for name in (held.ref, *held.aliases))
