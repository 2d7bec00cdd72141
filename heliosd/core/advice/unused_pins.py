"""Models that are pinned, and that nobody asks for: their memory is held for nothing."""

from collections.abc import Iterator
from urllib.parse import quote

from heliosd.core.advice.facts import Facts
from heliosd.core.advice.recommendation import Call, Recommendation, Rule
from heliosd.core.advice.words import count, span
from heliosd.core.units import format_bytes, format_seconds

LEAST_HOURS = 7 * 24
LEAST_SILENCE_HOURS = 7 * 24


def _judge(facts: Facts) -> Iterator[Recommendation]:
    for each in facts.models:
        kept = max(each.pinned, each.min_replicas)
        silent_hours = each.pin_hours if each.silent_hours is None else min(each.silent_hours, each.pin_hours)
        if not each.pinned or each.min_replicas or each.requests or silent_hours < LEAST_SILENCE_HOURS:
            continue
        asked = "never" if each.silent_hours is None else f"{span(each.silent_hours)} ago"
        yield Recommendation(
            rule=RULE.name,
            subject=each.model,
            title=f"unpin {each.model}",
            why=f"nobody asked for it {facts.window}, and {format_bytes(each.need_bytes * kept)} are held for it",
            evidence=(
                ("requests", f"0 {facts.window}"),
                ("last asked for", asked),
                ("pinned for", span(each.pin_hours)),
                ("held", f"{format_bytes(each.need_bytes)} for each of {count(kept, 'replica')}"),
                ("a start takes", format_seconds(each.load_s)),
            ),
            frees_bytes=each.need_bytes * kept,
            before=f"pinned, {count(each.pinned, 'replica')}",
            after="not pinned: it starts when it is asked for",
            calls=(Call("DELETE", f"/helios/v1/pins/{quote(each.model, safe='/@:')}"),),
            gib_hour_price=facts.gib_hour_price,
        )


RULE = Rule("unused_pin", "pins that nobody asks for", LEAST_HOURS, _judge)
