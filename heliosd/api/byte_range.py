"""Reads the headers with which a part of a file is asked for (RFC 9110, sections 13 and 14). Pure."""

import re

Span = tuple[int, int]
"""From this byte up to, without, that one."""

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*")


class Unsatisfiable(Exception):
    """The file has no such bytes."""


def asked_span(header: str | None, size_bytes: int) -> Span | None:
    """The bytes that `Range` asks for; None: all of them, also where it asks for several parts or in another unit.

    Raises Unsatisfiable when the file is shorter.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        start, end = max(0, size_bytes - int(found[2])), size_bytes
    else:
        start = int(found[1])
        if found[2] and int(found[2]) < start:
            return None
        end = min(int(found[2]) + 1, size_bytes) if found[2] else size_bytes
    if start >= end:
        raise Unsatisfiable
    return start, end


def names(header: str | None, tag: str) -> bool:
    """Whether a list of entity tags, as in `If-None-Match`, has this one or means any."""
    tags = [each.strip().removeprefix("W/") for each in (header or "").split(",")]
    return "*" in tags or tag in tags
