"""What a request will cost and what its prompt begins with, told from its body without a tokenizer. Pure."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CHARACTERS_PER_TOKEN = 4
DEFAULT_ANSWER_TOKENS = 256
"""Of an answer whose request gives no limit."""
MOST_TOKENS = 2**24
"""Nobody is charged for more, whatever limit is asked for."""

STEP_CHARACTERS = 512
MOST_STEPS = 16

_TEXTS = ("system", "instructions", "messages", "prompt", "input", "query", "documents", "texts")
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True)
class Work:
    tokens: int = 1
    """Of the prompt and of the longest answer, or of as many as are asked for."""
    prefix: tuple[int, ...] = ()
    """Hashes of ever longer beginnings of the prompt, one for every 512 characters, at most 16."""


def work_of(fields: Mapping[str, Any], *, answers: bool) -> Work:
    """The work that a body with these fields means; `answers`: the model writes something.

    What is not understood counts for nothing: the engine will say what is wrong with it.
    """
    prompt_tokens = 0.0
    beginning: list[str] = []
    wanted = STEP_CHARACTERS * MOST_STEPS
    for piece in _pieces(fields.get(name) for name in _TEXTS):
        if isinstance(piece, str):
            prompt_tokens += len(piece) / CHARACTERS_PER_TOKEN
        else:
            prompt_tokens += len(piece)  # they are tokens already
        if wanted > 0:
            text = piece[:wanted] if isinstance(piece, str) else ",".join(map(str, piece[: wanted // 2]))
            beginning.append(text)
            wanted -= len(text)
    answer_tokens = _answer_tokens(fields) if answers else 0
    tokens = min(MOST_TOKENS, round(prompt_tokens) + answer_tokens)
    return Work(max(1, tokens), _hashes("".join(beginning), str(fields.get("cache_salt") or "")))


def _answer_tokens(fields: Mapping[str, Any]) -> int:
    limit = next((found for name in _LIMITS if (found := _count(fields.get(name)))), DEFAULT_ANSWER_TOKENS)
    prompts = fields.get("prompt")
    several = len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1
    return min(MOST_TOKENS, limit * (_count(fields.get("n")) or 1) * several)


def _count(value: Any) -> int:
    """0 for what is no count."""
    return min(value, MOST_TOKENS) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _pieces(values: Iterable[Any]) -> Iterator[str | list[int]]:
    """The texts in them, in order, and lists of tokens; pictures and sounds are passed over."""
    waiting = list(values)[::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            if value and all(isinstance(each, int) for each in value):
                yield value
            else:
                waiting += value[::-1]
        elif isinstance(value, dict):
            waiting += [value.get(name) for name in ("text", "content", "role")]


def _hashes(text: str, salt: str) -> tuple[int, ...]:
    """The same on every node and in every process."""
    read = hashlib.blake2b(salt.encode(errors="replace"), digest_size=8)
    found = []
    for start in range(0, min(len(text), STEP_CHARACTERS * MOST_STEPS) - STEP_CHARACTERS + 1, STEP_CHARACTERS):
        read.update(text[start : start + STEP_CHARACTERS].encode(errors="replace"))
        found.append(int.from_bytes(read.digest()))
    return tuple(found)
