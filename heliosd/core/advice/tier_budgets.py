"""Budgets of tiers, and of sleepers, that are too small for what should be there, or far larger than what ever was."""

from collections.abc import Iterator

from heliosd.core.advice.facts import BudgetFacts, Facts
from heliosd.core.advice.recommendation import Recommendation, Rule, Setting, Where
from heliosd.core.advice.words import power_of_two
from heliosd.core.units import GiB, MiB, format_bytes

LEAST_HOURS = 14 * 24
HEADROOM = 2
WORTH_BYTES = GiB


def _judge(facts: Facts) -> Iterator[Recommendation]:
    for each in facts.budgets:
        if each.unmet:
            yield _larger(each)
        elif each.peak_bytes is not None:
            after = max(GiB, power_of_two(each.peak_bytes * HEADROOM / MiB) * MiB)
            if each.budget_bytes - after >= max(WORTH_BYTES, each.budget_bytes // 2):
                yield _smaller(each, after, facts.window)


def _larger(each: BudgetFacts) -> Recommendation:
    after = each.budget_bytes + each.missing_bytes
    settings = (Setting(each.key, format_bytes(each.budget_bytes), _toml(after)),) if each.missing_bytes else ()
    return Recommendation(
        rule=RULE.name,
        subject=each.key,
        title=f"raise {each.key}",
        why=f"not everything fits that should be in {each.what}: {each.unmet[0]}",
        evidence=(
            ("budget", format_bytes(each.budget_bytes)),
            ("used", format_bytes(each.used_bytes)),
            *(("does not fit", words) for words in each.unmet[:5]),
        ),
        where=Where.HOST if "host" in each.key else Where.DISK,
        before=format_bytes(each.budget_bytes),
        after=f"{format_bytes(after)}" if each.missing_bytes else "more",
        settings=settings,
        by_hand="" if settings else "see `heliosctl tiers plan` for how much, and set it, or want fewer models there",
    )


def _smaller(each: BudgetFacts, after: int, window: str) -> Recommendation:
    return Recommendation(
        rule=RULE.name,
        subject=each.key,
        title=f"lower {each.key} to {format_bytes(after)}",
        why=f"{each.what} held at most {format_bytes(each.peak_bytes or 0)} of {format_bytes(each.budget_bytes)}",
        evidence=(
            ("most held at once", f"{format_bytes(each.peak_bytes or 0)} {window}"),
            ("budget", format_bytes(each.budget_bytes)),
            ("headroom", f"{HEADROOM} times the most, at least"),
        ),
        frees_bytes=each.budget_bytes - after,
        where=Where.HOST if "host" in each.key else Where.DISK,
        before=format_bytes(each.budget_bytes),
        after=format_bytes(after),
        settings=(Setting(each.key, format_bytes(each.budget_bytes), _toml(after)),),
    )


def _toml(n_bytes: int) -> str:
    """As the configuration takes it, and exactly so many bytes, rounded up to a MiB."""
    return f"{-(-n_bytes // MiB)}MiB"


RULE = Rule("tier_budget", "budgets that are too small, or far larger than what was ever held", LEAST_HOURS, _judge)
