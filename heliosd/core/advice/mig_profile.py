"""Cards, or slices of cards, of which a smaller slice would have done."""

from collections.abc import Iterator

from heliosd.core.advice.facts import Facts
from heliosd.core.advice.recommendation import Recommendation, Rule
from heliosd.core.units import format_bytes

LEAST_HOURS = 14 * 24
HEADROOM = 1.25
"""So many times the most that was needed must the slice have."""


def _judge(facts: Facts) -> Iterator[Recommendation]:
    for each in facts.devices:
        fitting = {
            profile: size
            for profile, size in each.slices.items()
            if each.peak_bytes * HEADROOM <= size < each.capacity_bytes * 0.6
        }
        if not each.peak_bytes or not fitting:
            continue
        profile = min(fitting, key=lambda name: (fitting[name], name))
        whole = "this slice" if each.slice_of else "the whole card"
        yield Recommendation(
            rule=RULE.name,
            subject=each.device,
            title=f"make {each.device} ({each.name}) a MIG slice {profile}",
            why=f"at most {format_bytes(each.peak_bytes)} were needed there at once, and {whole} has "
            f"{format_bytes(each.capacity_bytes)}",
            evidence=(
                ("most needed at once", f"{format_bytes(each.peak_bytes)} {facts.window}"),
                (f"a slice {profile}", format_bytes(fitting[profile])),
                ("headroom", f"{HEADROOM:g} times the most, at least"),
            ),
            frees_bytes=each.capacity_bytes - fitting[profile],
            before=format_bytes(each.capacity_bytes),
            after=f"{format_bytes(fitting[profile])}; the rest is for other slices",
            by_hand=f"drain it, then cut it: `nvidia-smi mig -cgi {profile} -C` on a card in MIG mode, and restart "
            "heliosd. Slices have no links: models over several devices cannot use them",
            gib_hour_price=facts.gib_hour_price,
        )


RULE = Rule("mig_profile", "devices of which a smaller slice would have done", LEAST_HOURS, _judge)
