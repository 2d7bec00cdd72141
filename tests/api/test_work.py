"""The work of a request and the beginnings of its prompt, as its body tells them."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.api.work import MOST_TOKENS, work_of

X = "x" * 400
"""A hundred tokens."""


def user(content: Any) -> dict[str, Any]:
    return {"role": "", "content": content}


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"messages": [user(X)], "max_tokens": 50}, 150),
        ({"messages": [user(X)], "max_tokens": 50, "max_completion_tokens": 10}, 110),
        ({"messages": [user(X)]}, 100 + 256),
        ({"messages": [user(X)], "max_tokens": 50, "n": 4}, 300),
        ({"messages": [user([{"type": "text", "text": X}, {"type": "image_url", "image_url": {"url": X}}])],
          "max_tokens": 1}, 101),
        ({"system": [{"type": "text", "text": X}], "messages": [user(X)], "max_tokens": 1}, 201),
        ({"input": X, "instructions": X, "max_output_tokens": 7}, 207),
        ({"prompt": [X, X], "max_tokens": 10}, 220),
        ({"prompt": list(range(30)), "max_tokens": 10}, 40),
        ({"prompt": [[1, 2, 3], [4]], "max_tokens": 10}, 24),
        ({"messages": [user(X)], "max_tokens": 10**30}, MOST_TOKENS),
        ({"messages": [user(X)], "max_tokens": -5, "n": True}, 100 + 256),
        ({"messages": 7, "max_tokens": "many", "n": None}, 256),
        ({}, 256),
    ],
)  # fmt: skip
def test_tokens(fields: dict[str, Any], tokens: int) -> None:
    assert work_of(fields, answers=True).tokens == tokens


def test_what_only_reads_writes_nothing() -> None:
    assert work_of({"input": [X, X], "max_tokens": 9}, answers=False).tokens == 200
    assert work_of({"query": X, "documents": [X, {"text": X}]}, answers=False).tokens == 300
    assert work_of({}, answers=False).tokens == 1


def prefix(*texts: str, **more: Any) -> tuple[int, ...]:
    return work_of({"messages": [user(text) for text in texts], **more}, answers=True).prefix


def test_equal_beginnings_have_equal_hashes() -> None:
    system = "You are kind. " * 150  # 2100 characters
    one, two = prefix(system, "what is it?" * 100), prefix(system, "who are you?" * 100)
    assert one[:4] == two[:4]
    assert not set(one[4:]) & set(two[4:])
    assert all(0 <= each < 2**64 for each in one)


def test_hashes_are_the_same_in_every_process() -> None:
    digests = [hashlib.blake2b(b"a" * length, digest_size=8).digest() for length in (512, 1024)]
    assert prefix("a" * 1024) == tuple(int.from_bytes(digest, "big") for digest in digests)


def test_a_short_prompt_has_none_and_a_long_one_sixteen() -> None:
    assert prefix("a" * 511) == ()
    assert len(prefix("a" * 512)) == 1
    assert len(set(prefix("a" * 100_000))) == 16
    assert prefix("a" * 100_000) == prefix("a" * 50_000 + "b")


def test_a_salt_keeps_prompts_apart() -> None:
    assert not set(prefix("a" * 1024, cache_salt="s")) & set(prefix("a" * 1024))


def test_tokens_have_a_beginning_too() -> None:
    one, two = (work_of({"prompt": [*range(400), last]}, answers=True).prefix for last in (1, 2))
    assert one == two != ()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a\ud800", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "content", "x"]), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "input", "n", "max_tokens", "cache_salt"]), anything))
def test_whatever_is_sent_is_some_work(fields: dict[str, Any]) -> None:
    work = work_of(fields, answers=True)
    assert 1 <= work.tokens <= MOST_TOKENS
