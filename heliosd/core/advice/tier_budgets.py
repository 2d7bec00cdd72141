"""Budgets of host memory that are reached: more models could sleep, or be kept ready to load.

One that is never reached costs nothing: what is not held is anybody's.
"""

from collections.abc import Iterator

from heliosd.core.advice.facts import Facts
from heliosd.core.advice.recommendation import Recommendation, Rule, Setting, Where
from heliosd.core.units import MiB, format_bytes

LEAST_HOURS = 7 * 24
REACHED = 0.95
MORE = 1.5


def _judge(facts: Facts) -> Iterator[Recommendation]:
    for each in facts.budgets:
        if not each.budget_bytes or each.peak_bytes < each.budget_bytes * REACHED:
            continue
        mib = -(-int(each.budget_bytes * MORE) // MiB)
        yield Recommendation(
            rule=RULE.name,
            subject=each.key,
            title=f"raise {each.key} to {format_bytes(mib * MiB)}",
            why=f"{each.what} held {format_bytes(each.peak_bytes)} of {format_bytes(each.budget_bytes)} they may",
            evidence=(
                ("most held at once", f"{format_bytes(each.peak_bytes)} {facts.window}"),
                ("budget", format_bytes(each.budget_bytes)),
            ),
            where=Where.HOST,
            before=format_bytes(each.budget_bytes),
            after=format_bytes(mib * MiB),
            settings=(Setting(each.key, format_bytes(each.budget_bytes), f"{mib}MiB"),),
            by_hand="only if the machine has so much to spare: `heliosctl tiers` and `free` tell",
        )


RULE = Rule("tier_budget", "budgets of host memory that are reached", LEAST_HOURS, _judge)
