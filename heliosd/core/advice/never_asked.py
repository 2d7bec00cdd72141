"""Models that lie in the store, and that nobody asks for."""

from collections.abc import Iterator
from urllib.parse import quote

from heliosd.core.advice.facts import Facts
from heliosd.core.advice.recommendation import Call, Recommendation, Rule, Where
from heliosd.core.advice.words import span
from heliosd.core.units import MiB, format_bytes

LEAST_HOURS = 14 * 24
LEAST_SILENCE_HOURS = 30 * 24
WORTH_BYTES = 100 * MiB


def _judge(facts: Facts) -> Iterator[Recommendation]:
    for each in facts.models:
        silent_hours = each.age_hours if each.silent_hours is None else min(each.age_hours, each.silent_hours)
        if each.requests or silent_hours < LEAST_SILENCE_HOURS or each.stored_bytes < WORTH_BYTES:
            continue
        if each.pinned or each.min_replicas or each.serves_others:
            continue
        asked = "never, as far as is known" if each.silent_hours is None else f"{span(each.silent_hours)} ago"
        calls: tuple[Call, ...] = ()
        if each.disk_tier:
            calls = (Call("PUT", f"/helios/v1/tiers/models/{quote(each.model, safe='/@:')}", {"tier": "disk"}),)
        yield Recommendation(
            rule=RULE.name,
            subject=each.model,
            title=f"move {each.model} to the slower volume" if calls else f"remove {each.model} from the store",
            why=f"nobody has asked for it for {span(silent_hours)}, and it takes {format_bytes(each.stored_bytes)}",
            evidence=(
                ("last asked for", asked),
                ("in the store since", f"{span(each.age_hours)}"),
                ("its own bytes", format_bytes(each.stored_bytes)),
            ),
            frees_bytes=each.stored_bytes,
            where=Where.DISK,
            before="in the store",
            after="on the slower volume" if calls else "gone",
            calls=calls,
            by_hand=f"`heliosctl rm {each.model}`, if nobody will want it: what is removed must be fetched again",
        )


RULE = Rule("never_asked", "models that nobody asks for", LEAST_HOURS, _judge)
