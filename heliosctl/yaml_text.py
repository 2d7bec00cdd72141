"""Writes JSON values as YAML, so that `-o yaml` needs no library. Reads nothing."""

import json
import re
from typing import Any

# What YAML reads as the same string without quotes; everything else is written as JSON writes it.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def to_yaml(value: Any) -> str:
    """Return a block-style document with a newline at its end."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    match value:
        case dict() if value:
            return [line for key, item in value.items() for line in _entry(f"{_scalar(key)}:", item, "  ")]
        case list() if value:
            return [line for item in value for line in _item(item)]
        case _:
            return [_scalar(value)]


def _entry(head: str, item: Any, indent: str) -> list[str]:
    if isinstance(item, dict | list) and item:
        return [head, *(indent + line for line in _lines(item))]
    return [f"{head} {_scalar(item)}"]


def _item(item: Any) -> list[str]:
    first, *rest = _lines(item)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    # DEL and the C1 controls may not stand in YAML as they are, though JSON lets them.
    text = json.dumps(value, ensure_ascii=False)
    text = re.sub(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]", lambda m: f"\\u{ord(m[0]):04x}", text)
    # YAML 1.1 takes 1e-05 for a string: a number needs a point before its exponent.
    return re.sub(r"^(-?\d+)e", r"\1.0e", text) if isinstance(value, float) else text
