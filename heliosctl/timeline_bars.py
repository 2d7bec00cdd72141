"""The start of a replica as a chart in text: one line a phase, each where it was in time."""

from heliosd.core.units import format_seconds
from heliosd.wire import SpanView, TimelineView

WIDTH = 48
_WORTH_SHOWING = 0.05
"""Of the whole: what no phase tells of is shown from there on."""


def chart(view: TimelineView, *, plain: bool) -> str:
    """A title, and below it each phase with its seconds, its share and its place; parts of a phase are indented."""
    ended = {"starting": "has been starting for", "ready": "started in", "ended": "had started in"}[view.state]
    lines = [f"{view.replica} of {view.model or 'a model'} {ended} {format_seconds(view.total_s)}"]
    if view.left_s is not None:
        expected_s = format_seconds(sum(view.expected.values()))
        lines[0] += f"; {format_seconds(view.left_s)} of {expected_s} left, as earlier starts tell"
    rows = [(("  " if span.within else "") + span.phase, span.ended_s - span.began_s, span) for span in view.spans]
    width = max((len(name) for name, _, _ in rows), default=0)
    block = "#" if plain else "█"
    for name, took_s, span in rows:
        figures = f"{format_seconds(took_s):>8} {_share(took_s, view.total_s)}"
        lines.append(f"  {name:<{width}} {figures}  {_bar(span, view.total_s, block)}")
    if view.other_s > _WORTH_SHOWING * view.total_s:
        lines.append(f"  {'other':<{width}} {format_seconds(view.other_s):>8} {_share(view.other_s, view.total_s)}")
    return "\n".join(line.rstrip() for line in lines)


def ended_line(span: SpanView, view: TimelineView) -> str:
    """What is said when a phase has ended, with what was expected of it."""
    took_s = span.ended_s - span.began_s
    text = f"+{format_seconds(span.ended_s)}  {span.phase} took {format_seconds(took_s)}"
    if (usual_s := view.expected.get(span.phase)) is not None:
        text += f", {format_seconds(usual_s)} expected"
    if view.left_s is not None:
        text += f"; {format_seconds(view.left_s)} left"
    return text


def _share(took_s: float, total_s: float) -> str:
    return f"{took_s / total_s if total_s > 0 else 0.0:>4.0%}"


def _bar(span: SpanView, total_s: float, block: str) -> str:
    if total_s <= 0:
        return ""
    first = min(WIDTH - 1, int(WIDTH * span.began_s / total_s))
    count = max(1, round(WIDTH * (span.ended_s - span.began_s) / total_s))
    return " " * first + block * min(count, WIDTH - first)
