"""Models that are started for far more requests at once than ever come: activations and graphs are sized for them."""

from collections.abc import Iterator

from heliosd.core.advice.facts import Facts, ModelFacts
from heliosd.core.advice.recommendation import Recommendation, Rule, Setting
from heliosd.core.advice.words import count, model_key, power_of_two
from heliosd.core.units import MiB, format_bytes

LEAST_HOURS = 7 * 24
LEAST_REQUESTS = 500
HEADROOM = 4
"""So many times the most that came at once."""
FEWEST = 8
WORTH_BYTES = 128 * MiB


def proposed(each: ModelFacts) -> int | None:
    """How many would do; None where nothing says so: a quarter of what is set at most, or it is left."""
    if each.requests < LEAST_REQUESTS or not each.max_num_seqs or not each.most_at_once:
        return None
    enough = max(FEWEST, power_of_two(each.most_at_once * HEADROOM))
    return enough if enough <= each.max_num_seqs // 4 else None


def _judge(facts: Facts) -> Iterator[Recommendation]:
    for each in facts.models:
        fewer, change = proposed(each), each.narrower
        if fewer is None or change is None or change.value != fewer:
            continue
        freed = each.need_bytes - change.need_bytes
        if freed < WORTH_BYTES:
            continue
        replicas = max(1, each.most_replicas, each.pinned, each.min_replicas)
        yield Recommendation(
            rule=RULE.name,
            subject=each.model,
            title=f"start {each.model} for {fewer} requests at once",
            why=f"at most {each.most_at_once} of {count(each.requests, 'request')} came at once, and it is started for "
            f"{each.max_num_seqs}",
            evidence=(
                ("most at once", f"{each.most_at_once} {facts.window}"),
                ("requests", f"{each.requests:,}"),
                ("a replica takes", f"{format_bytes(each.need_bytes)}; then {format_bytes(change.need_bytes)}"),
                ("headroom", f"{HEADROOM} times the most, at least"),
            ),
            frees_bytes=freed * replicas,
            before=f"max_num_seqs {each.max_num_seqs}",
            after=f"max_num_seqs {fewer}: more requests at once wait",
            settings=(Setting(model_key(each.model, "max_num_seqs"), f"{each.max_num_seqs}", fewer),),
            gib_hour_price=facts.gib_hour_price,
        )


RULE = Rule("many_sequences", "room for more requests at once than come", LEAST_HOURS, _judge)
