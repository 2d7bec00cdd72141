"""Puts the metrics of several engines into one valid Prometheus text. Knows the format, not the metrics."""

from collections.abc import Iterable
from dataclasses import dataclass, field

_OURS = ("helios_", "process_", "python_")


@dataclass(slots=True)
class _Family:
    head: dict[str, str] = field(default_factory=dict)
    """`HELP` and `TYPE`, each at most once."""
    samples: list[str] = field(default_factory=list)


def merge_texts(texts: Iterable[tuple[str, str]]) -> str:
    """Merge `(replica, text)` pairs: each family is described once, and each series is told apart by `replica`.

    Names, labels and values stay as the engines wrote them; the label `replica` comes on top where it is missing,
    because two replicas of one model would otherwise give the same series. Families that Helios exports itself are
    left out.
    """
    families: dict[str, _Family] = {}
    for replica, text in texts:
        _collect(families, _escaped(replica), text)
    lines: list[str] = []
    for family in families.values():
        lines += family.head.values()
        lines += family.samples
    return "\n".join(lines) + "\n" if lines else ""


def _collect(families: dict[str, _Family], replica: str, text: str) -> None:
    family: _Family | None = None
    for line in text.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            _, word, name, *_ = line.split(" ", 3)
            family = None if name.startswith(_OURS) else families.setdefault(name, _Family())
            if family is not None:
                family.head.setdefault(word, line)
        elif line and not line.startswith("#") and family is not None:
            family.samples.append(_labelled(line, replica))


def _labelled(line: str, replica: str) -> str:
    if '{replica="' in line or ',replica="' in line:
        return line
    brace, space = line.find("{"), line.find(" ")
    if brace == -1 or space < brace:
        return f'{line[:space]}{{replica="{replica}"}}{line[space:]}'
    comma = "" if line[brace + 1] == "}" else ","
    return f'{line[: brace + 1]}replica="{replica}"{comma}{line[brace + 1 :]}'


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
