"""The client: streams chats from a server and notes when each token came. Runs in neither server's process."""

import asyncio
import json
import time
from dataclasses import dataclass
from itertools import pairwise

import aiohttp

from tests.bench.arguments import NAME

MAX_TOKENS = 64

_PLACES = (
    "a lighthouse",
    "a night train",
    "an orchard",
    "a harbour",
    "a library",
    "a mountain hut",
    "a market",
    "a mill",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's times, all on one clock."""

    sent: float
    came: tuple[float, ...]
    """When each piece of text was there."""
    tokens: int
    text: str

    @property
    def first_s(self) -> float:
        return self.came[0] - self.sent

    @property
    def gaps_s(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.came)]


def prompts(salt: str, count: int) -> list[str]:
    """`count` different prompts, the same for the same salt; none begins as another does."""
    return [
        f"{salt}.{number}: tell a long story that begins in {_PLACES[number % len(_PLACES)]} with {number + 2} people "
        "who have never met, and ends with a letter that explains everything."
        for number in range(count)
    ]


async def ask(
    session: aiohttp.ClientSession, url: str, prompt: str, max_tokens: int = MAX_TOKENS, model: str = NAME
) -> Answer:
    """Stream one chat of exactly `max_tokens` tokens. Raises RuntimeError when the server refuses or breaks off."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    came: list[float] = []
    events: list[bytes] = []
    rest = b""
    sent = time.perf_counter()
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{url} answered {response.status}: {await response.text()}")
        async for chunk in response.content.iter_any():
            now = time.perf_counter()
            *whole, rest = (rest + chunk).split(b"\n\n")
            for event in whole:
                events.append(event)
                came.append(now)
    return _answer(sent, came, events, max_tokens)


def _answer(sent: float, came: list[float], events: list[bytes], max_tokens: int) -> Answer:
    """Read the events after the stream has ended, so that reading costs nothing while others still stream."""
    times: list[float] = []
    text: list[str] = []
    tokens = 0
    for at, event in zip(came, events, strict=True):
        if not event.startswith(b"data: {"):
            continue
        data = json.loads(event[6:])
        if "error" in data:
            raise RuntimeError(f"the answer broke off: {data['error']}")
        if usage := data.get("usage"):
            tokens = usage["completion_tokens"]
        # The first event only says who speaks.
        if data["choices"] and data["choices"][0]["delta"].get("content"):
            times.append(at)
            text.append(data["choices"][0]["delta"]["content"])
    if tokens != max_tokens or not times:
        raise RuntimeError(f"{tokens} tokens came instead of {max_tokens}")
    return Answer(sent, tuple(times), tokens, "".join(text))


async def measure(url: str, streams: int, requests: int, salt: str) -> list[Answer]:
    """`streams` clients at once, each asking `requests` times one after the other, over connections kept open."""
    asked = prompts(salt, streams * requests)
    connector = aiohttp.TCPConnector(limit=streams)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(300)) as session:

        async def client(number: int) -> list[Answer]:
            return [await ask(session, url, prompt) for prompt in asked[number::streams]]

        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(client(number)) for number in range(streams)]
    return [answer for each in clients for answer in each.result()]
