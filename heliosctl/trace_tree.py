"""A trace as a tree in text: one line a span, indented below the one it is a part of, with its place in time."""

from collections.abc import Iterator, Mapping, Sequence

from heliosctl.times import clock
from heliosd.core.units import format_bytes, format_seconds
from heliosd.wire import TraceSpan, TraceView

WIDTH = 40
_WORTH_SHOWING = 0.05
"""Of the whole: what no span tells of is shown from there on."""
_TOLD_BY_NAME = frozenset({"helios.reason", "helios.replica", "helios.model", "helios.ticket", "helios.code"})


def tree(view: TraceView, *, wide: bool, plain: bool) -> str:
    """A title, then the spans; `wide` adds what each knows. `plain`: only ASCII."""
    rows = list(_rows(view))
    width = max(len("  " * depth + _title(span)) for depth, span in rows)
    lines = [f"trace {view.trace_id}, {clock(view.began_at)}, {format_seconds(view.total_s)}"]
    for depth, span in rows:
        name = "  " * depth + _title(span)
        ended_s = view.total_s if span.ended_s is None else span.ended_s
        took = format_seconds(max(0.0, ended_s - span.began_s)) + ("…" if span.ended_s is None and not plain else "")
        lines.append(f"{name:<{width}}  {took:>9}  {_bar(span.began_s, ended_s, view.total_s, plain)}".rstrip())
        pad = "  " * (depth + 1)
        if reason := span.attributes.get("helios.reason"):
            lines.append(f"{pad}because: {reason}")
        if span.error:
            lines.append(f"{pad}failed: {span.error.strip().splitlines()[-1]}")
        if wide:
            lines += [f"{pad}{name} = {_value(name, value)}" for name, value in _known(span.attributes)]
        lines += [f"{pad}see also: trace {link}" for link in span.links]
    if view.unexplained_s > _WORTH_SHOWING * view.total_s:
        lines.append(f"{format_seconds(view.unexplained_s)} are in none of these spans")
    if view.left_out:
        lines.append(f"{view.left_out} more spans were not kept")
    return "\n".join(lines)


def _rows(view: TraceView) -> Iterator[tuple[int, TraceSpan]]:
    """Each span with its depth, those above before those below."""
    known = {span.id for span in view.spans}
    below: dict[str | None, list[TraceSpan]] = {}
    for span in view.spans:
        below.setdefault(span.parent if span.parent in known else None, []).append(span)

    def walk(parent: str | None, depth: int) -> Iterator[tuple[int, TraceSpan]]:
        for span in below.get(parent, []):
            yield depth, span
            yield from walk(span.id, depth + 1)

    return walk(None, 0)


def _title(span: TraceSpan) -> str:
    about = [str(span.attributes[name]) for name in ("helios.replica", "helios.code") if name in span.attributes]
    return " ".join([span.name, *about])


def _known(attributes: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    return ((name, value) for name, value in sorted(attributes.items()) if name not in _TOLD_BY_NAME)


def _value(name: str, value: object) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return format_bytes(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def _bar(began_s: float, ended_s: float, total_s: float, plain: bool) -> str:
    if total_s <= 0:
        return ""
    first = min(WIDTH - 1, max(0, int(WIDTH * began_s / total_s)))
    count = max(1, round(WIDTH * (ended_s - began_s) / total_s))
    return " " * first + ("#" if plain else "█") * min(count, WIDTH - first)
