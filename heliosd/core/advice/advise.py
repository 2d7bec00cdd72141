"""All rules, asked at once; what they say, the most worth first."""

from collections.abc import Mapping
from dataclasses import dataclass

from heliosd.core.advice import (
    long_context,
    many_sequences,
    merge_replicas,
    mig_profile,
    never_asked,
    precision,
    split_replicas,
    tier_budgets,
    unused_pins,
    vain_prefetch,
)
from heliosd.core.advice.facts import Facts
from heliosd.core.advice.recommendation import Quiet, Recommendation, Rule

RULES: tuple[Rule, ...] = (
    unused_pins.RULE,
    long_context.RULE,
    many_sequences.RULE,
    precision.RULE,
    merge_replicas.RULE,
    split_replicas.RULE,
    mig_profile.RULE,
    tier_budgets.RULE,
    never_asked.RULE,
    vain_prefetch.RULE,
)


@dataclass(frozen=True, slots=True)
class Advice:
    found: tuple[Recommendation, ...]
    """The most worth first."""
    put_off: tuple[Recommendation, ...]
    quiet: tuple[Quiet, ...]


def advise(facts: Facts, put_off: Mapping[str, float] | None = None) -> Advice:
    """`put_off`: ids that nobody wants to see now."""
    hidden = put_off or {}
    found: list[Recommendation] = []
    quiet = []
    for rule in RULES:
        if facts.hours < rule.least_hours:
            quiet.append(Quiet(rule.name, f"not enough history: {facts.hours} hours of {rule.least_hours}"))
        else:
            found += rule.judge(facts)
    found.sort(key=lambda each: (-each.weight, each.id))
    return Advice(
        tuple(each for each in found if each.id not in hidden),
        tuple(each for each in found if each.id in hidden),
        tuple(quiet),
    )
