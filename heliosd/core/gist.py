"""The one line of an engine's last words that a person wants to read. The whole of them is kept beside it."""

LONGEST = 400
SAID_LAST = "; it said last:\n"
"""Between how a process ended and the end of its log."""

_TRACEBACK = "Traceback (most recent call last):\n"
_NOISE = "For further information visit"


def gist(cause: str) -> str:
    """How it ended, and the exception of the last traceback; without a traceback, the last line.

    The end of a log without a traceback says nothing about a process that was killed, so it is left out.
    """
    how, told, said = cause.partition(SAID_LAST)
    if not told:
        return _exception(cause)[:LONGEST]
    return (f"{how}: {_exception(said)}" if _TRACEBACK in said else how)[:LONGEST]


def _exception(text: str) -> str:
    _, found, after = text.rpartition(_TRACEBACK)
    lines = after.strip("\n").splitlines() if found else [text.strip().rpartition("\n")[2]]
    first = next((number for number, line in enumerate(lines) if line and not line.startswith(" ")), 0)
    return " ".join(line.strip() for line in lines[first:] if line.strip() and _NOISE not in line)
