"""A real receiver of alerts: keeps what is posted, and fails as often as it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.loopback import on_loopback


@dataclass
class Receiver:
    url: str = ""
    failures: list[int] = field(default_factory=list)
    """Statuses to answer with first."""
    posts: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    tries: int = 0

    async def take(self, request: web.Request) -> web.Response:
        self.tries += 1
        if self.failures:
            return web.Response(status=self.failures.pop(0))
        self.posts.put_nowait(await request.json())
        return web.Response()


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    it = Receiver()
    app = web.Application()
    app.router.add_post("/hook", it.take)
    async with on_loopback(app) as url:
        it.url = f"{url}/hook"
        yield it
