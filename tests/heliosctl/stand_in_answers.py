"""The stand-in daemon asked as a model: words come one by one, whole or broken off."""

import asyncio
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.heliosctl.stand_in_replies import RESPONSE, Refusal, sse


class Answering(ABC):
    """Public fields say what comes."""

    def __init__(self) -> None:
        self.words = ["The capital", " of France", " is Paris."]
        self.comments: list[str] = []
        self.chats = True
        self.start_s = 0.0
        """How long it takes to find out that a model cannot chat."""
        self.endless = False
        """Give the words and then nothing more, until the client goes."""
        self.cut = False
        """End a stream without its last line."""
        self.left = threading.Event()
        """Set when a client has gone in the middle of an endless answer."""

    @abstractmethod
    def find(self, ref: str) -> object:
        """The model of that name. Raises Refusal."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.find((await request.json())["model"])
        if not self.chats:
            await asyncio.sleep(self.start_s)
            raise Refusal(400, "bad_request", "As of v4.44 you must provide a chat template", "ValueError")
        return await self._stream(request, lambda word: {"delta": {"content": word}})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, lambda word: {"text": word})

    async def _stream(self, request: web.Request, choice: Callable[[str], dict[str, Any]]) -> web.StreamResponse:
        async with sse(request) as send:
            for comment in self.comments:
                await request[RESPONSE].write(f": {comment}\n\n".encode())
            for word in self.words:
                await send(None, json.dumps({"choices": [choice(word)]}))
            if self.endless:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.left.set()
            if self.cut:
                return request[RESPONSE]
            await send(None, json.dumps({"choices": [choice("") | {"finish_reason": "stop"}]}))
            await send(None, json.dumps({"choices": [], "usage": {"completion_tokens": 7}}))
            await send(None, "[DONE]")
        return request[RESPONSE]
