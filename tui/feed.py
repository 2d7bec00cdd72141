"""The daemon's news as they come: snapshots, journal lines, and when the connection is lost or back."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import aiohttp

from heliosctl.client import failure_from, unreachable
from heliosctl.exits import Exit, Failure
from heliosctl.place import Place
from heliosctl.sse import SseEvent, SseParser
from heliosd.wire import EventView
from tui.ask import base_of, session_to, words_of
from tui.now import Now, read_now

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 4.0
SILENCE_S = 45.0
"""The daemon says something every 15 s; three times nothing means that it is gone."""
PAST_EVENTS = 200


@dataclass(frozen=True, slots=True)
class Connected:
    away_s: float | None
    """None the first time, else how long the daemon was not there."""


@dataclass(frozen=True, slots=True)
class Lost:
    reason: str
    retry_s: float
    since: float
    """When the connection broke, in seconds since the epoch."""


News = Now | EventView | Connected | Lost


class Feed:
    """One connection at a time, made again as often as it breaks. No journal line is told twice or left out."""

    def __init__(self, place: Place, *, first_retry_s: float = FIRST_RETRY_S) -> None:
        self.place = place
        self._events_url = f"{base_of(place)}/helios/v1/events"
        self._first_retry_s = first_retry_s
        self._last_id = 0

    async def news(self) -> AsyncIterator[News]:
        """Yield for ever. Raises Failure only when the daemon says that this client may not ask."""
        retry_s = self._first_retry_s
        lost_at: float | None = None
        while True:
            try:
                async for news in self._connection(lost_at):
                    if isinstance(news, Connected):
                        retry_s, lost_at = self._first_retry_s, None
                    yield news
                reason = "the daemon ended the stream"
            except Failure as failure:
                if failure.exit_code is Exit.NOT_ALLOWED:
                    raise
                reason = failure.message
            except (OSError, ValueError, aiohttp.ClientError, TimeoutError) as error:
                reason = words_of(error)
            lost_at = lost_at or time.monotonic()
            yield Lost(reason, retry_s, time.time() - (time.monotonic() - lost_at))
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, LAST_RETRY_S)

    async def once(self) -> AsyncGenerator[News, None]:
        """The same up to the first snapshot. Raises Failure when that does not come."""
        try:
            async with aclosing(self._connection(None)) as connection:
                async for news in connection:
                    yield news
                    if isinstance(news, Now):
                        return
        except aiohttp.ClientConnectorError as error:
            raise unreachable(self.place, error.os_error) from error
        except (OSError, ValueError, aiohttp.ClientError, TimeoutError) as error:
            raise Failure(f"cannot read from heliosd at {self.place}: {words_of(error)}", Exit.UNREACHABLE) from error
        raise Failure(f"cannot show {self.place}: heliosd ended the stream without a snapshot")

    async def _connection(self, lost_at: float | None) -> AsyncGenerator[News, None]:
        async with session_to(self.place, None, SILENCE_S) as session:
            past = await self._past(session)
            yield Connected(None if lost_at is None else time.monotonic() - lost_at)
            for event in past:
                if self._fresh(event):
                    yield event
            async with aclosing(self._stream(session)) as stream:
                async for news in stream:
                    if news.kind == "snapshot":
                        yield read_now(news.data, time.monotonic())
                    elif news.kind == "journal":
                        event = EventView.model_validate_json(news.data)
                        if self._fresh(event):
                            yield event

    def _fresh(self, event: EventView) -> bool:
        """State changes have the number 0 and are never told again; of journal lines only later ones are new."""
        if event.id == 0:
            return True
        if event.id <= self._last_id:
            return False
        self._last_id = event.id
        return True

    async def _past(self, session: aiohttp.ClientSession) -> list[EventView]:
        query = {"limit": PAST_EVENTS, "after": self._last_id}
        async with session.get(self._events_url, params=query) as response:
            await _check(response)
            return [EventView.model_validate(row) for row in (await response.json())["events"]]

    async def _stream(self, session: aiohttp.ClientSession) -> AsyncGenerator[SseEvent, None]:
        query = {"follow": 1, "snapshots": 1, "after": self._last_id}
        parser = SseParser()
        async with session.get(self._events_url, params=query) as response:
            await _check(response)
            async for chunk in response.content.iter_any():
                for event in parser.feed(chunk):
                    yield event


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status >= 400:
        raise failure_from(await response.read(), response.status)
