"""Starts ahead of need that hardly ever meet one."""

from collections.abc import Iterator

from heliosd.core.advice.facts import Facts
from heliosd.core.advice.recommendation import Recommendation, Rule, Setting
from heliosd.core.units import GiB, format_seconds

LEAST_HOURS = 24
LEAST_STARTS = 30
"""That have come to an end, asked for or not."""
LEAST_HIT_RATIO = 0.2
"""Below what starts ahead are made for (0.3), and a third of it for luck."""


def _judge(facts: Facts) -> Iterator[Recommendation]:
    each = facts.prefetch
    ended = each.hits + each.misses
    if not each.enabled or ended < LEAST_STARTS or each.hours < LEAST_HOURS or each.hits / ended >= LEAST_HIT_RATIO:
        return
    held = int(each.wasted_byte_s / (each.hours * 3600))
    yield Recommendation(
        rule=RULE.name,
        subject="prefetch.enabled",
        title="start no models ahead of need",
        why=f"{each.misses} of {ended} were started in vain",
        evidence=(
            ("asked for in time", f"{each.hits} of {ended} in {each.hours:.0f} hours"),
            ("held in vain", f"{each.wasted_byte_s / GiB / 3600:.1f} GiB-hours"),
            ("a start takes", format_seconds(each.load_s)),
        ),
        frees_bytes=held,
        saves_s_per_day=-each.hits * each.load_s * 24 / each.hours,
        before="prefetch.enabled true",
        after="prefetch.enabled false",
        settings=(Setting("prefetch.enabled", "true", after=False),),
        by_hand="a shorter prefetch.horizon_s is the milder change",
        gib_hour_price=facts.gib_hour_price,
    )


RULE = Rule("vain_prefetch", "starts ahead of need that meet none", LEAST_HOURS, _judge)
