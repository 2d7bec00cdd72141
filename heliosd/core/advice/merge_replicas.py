"""Models with more replicas than their requests need."""

import math
from collections.abc import Iterator
from urllib.parse import quote

from heliosd.core.advice.facts import Facts, ModelFacts
from heliosd.core.advice.recommendation import Call, Recommendation, Rule, Setting
from heliosd.core.advice.words import count, model_key
from heliosd.core.units import format_bytes

LEAST_HOURS = 7 * 24
LEAST_REQUESTS = 100
FILLED = 0.5
"""Of what a replica works on at once, at the busiest time: fewer replicas must still have so much to spare."""


def enough(each: ModelFacts) -> int:
    """Replicas that have room to spare for the most requests that came at once."""
    return max(1, math.ceil(each.most_at_once / max(1, (each.max_num_seqs or 1) * FILLED)))


def _judge(facts: Facts) -> Iterator[Recommendation]:
    for each in facts.models:
        kept, few = max(each.pinned, each.min_replicas), enough(each)
        if each.max_num_seqs is None or each.requests < LEAST_REQUESTS or kept <= few:
            continue
        calls: tuple[Call, ...] = ()
        settings: tuple[Setting, ...] = ()
        if each.pinned > few:
            calls = (Call("PUT", f"/helios/v1/pins/{quote(each.model, safe='/@:')}", {"replicas": few}),)
        if each.min_replicas > few:
            settings = (Setting(model_key(each.model, "min_replicas"), str(each.min_replicas), few),)
        yield Recommendation(
            rule=RULE.name,
            subject=each.model,
            title=f"keep {count(few, 'replica')} of {each.model} ready instead of {kept}",
            why=f"at most {each.most_at_once} requests came at once, and one replica works on {each.max_num_seqs}",
            evidence=(
                ("most at once", f"{each.most_at_once} {facts.window}"),
                ("one works on", str(each.max_num_seqs)),
                ("requests", f"{each.requests:,}"),
                ("a replica takes", format_bytes(each.need_bytes)),
            ),
            frees_bytes=each.need_bytes * (kept - few),
            before=count(kept, "replica"),
            after=count(few, "replica"),
            calls=calls,
            settings=settings,
            gib_hour_price=facts.gib_hour_price,
        )


RULE = Rule("merge_replicas", "more replicas kept ready than requests need", LEAST_HOURS, _judge)
