"""Models whose one replica is not enough at times, where there is room for another."""

import math
from collections.abc import Iterator

from heliosd.core.advice.facts import Facts
from heliosd.core.advice.recommendation import Recommendation, Rule, Setting
from heliosd.core.advice.words import model_key
from heliosd.core.units import format_bytes

LEAST_HOURS = 24
LEAST_REQUESTS = 100
MOST_REPLICAS = 64
"""As the configuration has it."""


def _judge(facts: Facts) -> Iterator[Recommendation]:
    for each in facts.models:
        if each.max_num_seqs is None or each.requests < LEAST_REQUESTS:
            continue
        more = min(MOST_REPLICAS, math.ceil(each.most_at_once / each.max_num_seqs))
        if more <= each.max_replicas or not 0 < each.need_bytes <= facts.free_bytes:
            continue
        yield Recommendation(
            rule=RULE.name,
            subject=each.model,
            title=f"let {each.model} have {more} replicas",
            why=f"{each.most_at_once} requests came at once, and {each.max_replicas} x {each.max_num_seqs} are served",
            evidence=(
                ("most at once", f"{each.most_at_once} {facts.window}"),
                ("one works on", str(each.max_num_seqs)),
                ("free at the busiest time", format_bytes(facts.free_bytes)),
                ("a replica takes", format_bytes(each.need_bytes)),
            ),
            before=f"max_replicas {each.max_replicas}",
            after=f"max_replicas {more}: the others start when one cannot keep up and there is room",
            settings=(Setting(model_key(each.model, "max_replicas"), str(each.max_replicas), more),),
        )


RULE = Rule("split_replicas", "more requests at once than the replicas work on", LEAST_HOURS, _judge)
