"""What was asked for, when: a CSV of `seconds,model,prompt_tokens,output_tokens`, in the order of time."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from heliosd.errors import ConfigError

COLUMNS = ("seconds", "model", "prompt_tokens", "output_tokens")
MOST_REQUESTS = 10_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    at_s: float
    model: str
    prompt_tokens: int
    output_tokens: int


def read_trace(file: Path) -> list[Asked]:
    """Raises ConfigError that names the line at fault."""
    try:
        with file.open(newline="", encoding="utf-8") as source:
            return list(_rows(csv.DictReader(source)))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use the trace {file}: {error}") from error


def _rows(reader: "csv.DictReader[str]") -> Iterable[Asked]:
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"it has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
    before = 0.0
    for number, row in enumerate(reader, 2):
        try:
            asked = Asked(
                float(row["seconds"]), row["model"], int(row["prompt_tokens"]), max(1, int(row["output_tokens"]))
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"line {number}: {error}") from error
        if not before <= asked.at_s < 1e9 or asked.prompt_tokens < 0 or not asked.model:
            raise ValueError(f"line {number}: seconds must not go back, tokens not be negative, a model be named")
        if number > MOST_REQUESTS:
            raise ValueError(f"it has more than {MOST_REQUESTS} requests")
        before = asked.at_s
        yield asked
