"""Text and values without what must not leave the machine: keys, tokens, passwords, and the words of prompts."""

import re
from typing import Any

HIDDEN = "***"
_NAMES = (
    "secret", "token", "password", "passwd", "authorization", "api_key", "apikey", "api-key", "x-api-key", "credential",
    "cookie", "private_key", "cluster_key", "hub_token", "traceparent_key", "x-helios-peer", "headers",
)  # fmt: skip
_NAME = re.compile("|".join(map(re.escape, _NAMES)), re.IGNORECASE)
_COUNTS = re.compile(r"(max_|num_|n_|_)?tokens(_per_s|_per_day|_ratio)?$|_tokens?_(count|total|id|ids)$", re.IGNORECASE)
"""Of a model's tokens, which are no secrets."""
_PROMPTS = frozenset(
    {"prompt", "prompts", "messages", "content", "input", "inputs", "query", "documents", "completion"}
)
_IN_TEXT = (
    re.compile(r"\bhk-[A-Za-z0-9_\-]{8,}"),  # our own keys
    re.compile(r"\bhf_[A-Za-z0-9]{8,}"),  # the hub's
    re.compile(r"\bsk-[A-Za-z0-9_\-]{8,}"),  # of other services, sent by mistake
    re.compile(r"(?i)\b(?:bearer|basic)\s+[^\s\"',;\\]{4,}"),
    re.compile(r"(?<=://)[^/\s@\"']+@"),  # user and password of a URL
    re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*"),
)
_MARKS = ("hk-", "hf_", "sk-", "bearer", "basic", "://", "eyj")
"""Without any of these in a text, none of those patterns is in it: to look for words is much faster."""
_PRIVATE_KEY = re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)")
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_ASSIGNED = re.compile(
    rf"(?i)((?:(?:{'|'.join(map(re.escape, _NAMES))})[\w\-]{{0,40}}|(?<![a-z])key)[\\\"']*\s*[=:]\s*)"
    rf"({_QUOTED}|\\\".*?\\\"|[^\s,;&}}\]]+)"
)
_SAID = re.compile(
    rf"(?i)((?:\b(?:{'|'.join(sorted(_PROMPTS))}))[\\\"']*\s*[=:]\s*)"
    rf"({_QUOTED}|\\\".*?\\\"|\[.*\]|\{{.*\}}|[^\s,;&}}\]]+)"
)
"""As logs show them: in JSON, with its quotes escaped or not, and as key=value."""


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds something secret."""
    return (bool(_NAME.search(name)) and not _COUNTS.search(name)) or name.lower() in ("key", "hash")


def without_private_keys(text: str) -> str:
    """`text` without private keys, which take several lines."""
    return _PRIVATE_KEY.sub(HIDDEN, text)


def suspicious(text: str, secrets: frozenset[str] = frozenset()) -> bool:
    """Whether there may be something to redact; much faster than to do it."""
    small = text.lower()
    words = ("key", "private", *_MARKS, *_NAMES, *_PROMPTS)
    return any(word in small for word in words) or any(secret in text for secret in secrets)


def redact_text(text: str, secrets: frozenset[str] = frozenset()) -> str:
    """`text` without anything that looks like a secret or like the words of a prompt, and without any of `secrets`."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = without_private_keys(text)
    small = text.lower()
    if any(mark in small for mark in _MARKS):
        for pattern in _IN_TEXT:
            text = pattern.sub(HIDDEN, text)
    if any(name in small for name in ("key", *_NAMES)):
        text = _ASSIGNED.sub(_unless_count, text)
    if any(name in small for name in _PROMPTS):
        text = _SAID.sub(rf"\1{HIDDEN}", text)
    return text


def _unless_count(found: re.Match[str]) -> str:
    name = found[1].rstrip("=: \"'\\")
    return found[0] if _COUNTS.search(name) or found[2].isdecimal() else found[1] + HIDDEN


def redact(value: Any, secrets: frozenset[str] = frozenset(), *, longest: int = 10_000) -> Any:
    """The same of what JSON can say: fields with a secret's or a prompt's name lose their value, texts are redacted and
    cut to `longest` characters."""
    match value:
        case dict():
            return {str(name): _field(str(name), each, secrets, longest) for name, each in value.items()}
        case list() | tuple():
            return [redact(each, secrets, longest=longest) for each in value]
        case str():
            clean = redact_text(value, secrets)
            return clean if len(clean) <= longest else f"{clean[:longest]}… ({len(clean)} characters)"
    return value


def _field(name: str, value: Any, secrets: frozenset[str], longest: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if is_secret_name(name) or name.lower() in _PROMPTS:
        return HIDDEN
    return redact(value, secrets, longest=longest)
