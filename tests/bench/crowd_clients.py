"""Clients that ask models at random, and what became of each request: nothing may end without a word.

A request is *answered* when all of its answer came, *refused* when an error with a code came instead of the answer or
in the middle of it, and *lost* otherwise: cut off, no answer for `limit_s`, an error without a code.
"""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp

LEAVES = 0.05
"""Share of requests whose client goes away half way."""
_MOST_TOKENS = 48
_LONGEST_STAY_S = 6.0
_PAUSE_S = 0.5
_SUBJECTS = ("a lighthouse", "a night train", "an orchard", "a harbour", "a library", "a mill")


class End(StrEnum):
    ANSWERED = "answered"
    REFUSED = "refused"
    LOST = "lost"
    LEFT = "left"
    """Its client went away on purpose."""


@dataclass(frozen=True, slots=True)
class Outcome:
    model: str
    end: End
    seconds: float
    """From asking to the first piece of the answer, or to its end where none came."""
    why: str = ""
    """The code of a refusal; how it was lost."""
    said: str = ""
    """The message of a refusal."""


class Refusal(Exception):
    """An error with a code came."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Broken(Exception):
    """An answer ended in a way that no client can understand."""


class Left(Exception):
    """The client has had enough, as it had planned."""


@dataclass(slots=True)
class Asking:
    """One request on its way."""

    model: str
    max_tokens: int
    stream: bool
    leaves: bool
    began: float
    first: float | None = None

    def body(self, prompt: str) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.max_tokens,
            "ignore_eos": True,
            "stream": self.stream,
        }


async def client(url: str, models: Sequence[str], until: float, dice: random.Random, limit_s: float) -> list[Outcome]:
    """Ask one request after the other until `until`, on `time.monotonic()`; returns when the last one has ended."""
    found: list[Outcome] = []
    timeout = aiohttp.ClientTimeout(None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while time.monotonic() < until:
            asking = Asking(
                model=dice.choice(models),
                max_tokens=dice.randint(4, _MOST_TOKENS),
                stream=dice.random() < 0.5,
                leaves=dice.random() < LEAVES,
                began=time.monotonic(),
            )
            words = dice.randint(1, 80)
            prompt = f"{dice.random()}: tell of {dice.choice(_SUBJECTS)}" + ", and of a letter" * words
            found.append(await ask(session, url, asking, prompt, dice, limit_s))
            await asyncio.sleep(dice.random() * _PAUSE_S)
    return found


async def ask(
    session: aiohttp.ClientSession, url: str, asking: Asking, prompt: str, dice: random.Random, limit_s: float
) -> Outcome:
    """Ask, and say what became of it."""
    stay_s = dice.random() * _LONGEST_STAY_S if asking.leaves and not asking.stream else None
    try:
        async with asyncio.timeout(limit_s):
            await _exchange(session, url, asking, prompt, stay_s)
    except Refusal as refusal:
        return _outcome(asking, End.REFUSED, refusal.code, refusal.message)
    except Left:
        return _outcome(asking, End.LEFT)
    except Broken as broken:
        return _outcome(asking, End.LOST, str(broken))
    except TimeoutError:
        return _outcome(asking, End.LOST, f"no end after {limit_s:.0f} s")
    except aiohttp.ClientError as error:
        return _outcome(asking, End.LOST, f"cut off: {type(error).__name__}: {error}")
    return _outcome(asking, End.ANSWERED)


def _outcome(asking: Asking, end: End, why: str = "", said: str = "") -> Outcome:
    first = time.monotonic() if asking.first is None else asking.first
    return Outcome(asking.model, end, first - asking.began, why, said)


async def _exchange(
    session: aiohttp.ClientSession, url: str, asking: Asking, prompt: str, stay_s: float | None
) -> None:
    try:
        async with asyncio.timeout(stay_s):
            async with session.post(f"{url}/v1/chat/completions", json=asking.body(prompt)) as response:
                if response.status != 200:
                    raise _refusal(await response.text(), response.status)
                if asking.stream:
                    await _stream(response, asking)
                else:
                    _whole(await response.text())
                    asking.first = time.monotonic()
    except TimeoutError:
        if stay_s is None:
            raise
        raise Left from None


async def _stream(response: aiohttp.ClientResponse, asking: Asking) -> None:
    pieces = 0
    async for line in response.content:
        if not line.startswith(b"data: "):
            continue  # a comment for whoever waits, or the end of an event
        text = line[6:].strip().decode()
        if text == "[DONE]":
            if not pieces:
                raise Broken("a stream without an answer")
            return
        event = _object(text)
        if "error" in event:
            raise _refusal(text, response.status)
        if not any(choice.get("delta", {}).get("content") for choice in event.get("choices", ())):
            continue
        if asking.first is None:
            asking.first = time.monotonic()
        pieces += 1
        if asking.leaves and pieces >= asking.max_tokens // 2:
            raise Left
    raise Broken("the stream ended without [DONE] or an error")


def _whole(text: str) -> None:
    if not _object(text).get("choices"):
        raise Broken(f"200 without an answer: {text[:200]}")


def _refusal(text: str, status: int) -> Exception:
    error = _object(text).get("error")
    if not isinstance(error, dict) or not isinstance(error.get("code"), str) or not error.get("message"):
        return Broken(f"status {status} without a code: {text[:200]}")
    return Refusal(error["code"], str(error["message"]))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Broken(f"no JSON object: {text[:200]}")
    return found
