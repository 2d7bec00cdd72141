"""Models whose weights a narrower precision would shrink, which the card multiplies in."""

from collections.abc import Iterator

from heliosd.core.advice.facts import Facts
from heliosd.core.advice.recommendation import Recommendation, Rule
from heliosd.core.advice.words import count
from heliosd.core.units import GiB, format_bytes

LEAST_HOURS = 24
LEAST_REQUESTS = 50
WORTH_BYTES = 2 * GiB


def _judge(facts: Facts) -> Iterator[Recommendation]:
    for each in facts.models:
        change = each.quantized
        if change is None or each.requests < LEAST_REQUESTS or each.need_bytes - change.need_bytes < WORTH_BYTES:
            continue
        replicas = max(1, each.most_replicas, each.pinned, each.min_replicas)
        made = f", {change.by}" if change.by else ""
        yield Recommendation(
            rule=RULE.name,
            subject=each.model,
            title=f"serve {each.model} in {change.value}",
            why=f"a replica would take {format_bytes(change.need_bytes)} instead of {format_bytes(each.need_bytes)}",
            evidence=(
                ("as it is", format_bytes(each.need_bytes)),
                (f"in {change.value}", f"{format_bytes(change.need_bytes)}, estimated{made}"),
                ("requests", f"{each.requests:,} {facts.window}"),
                ("replicas", count(replicas, "replica")),
            ),
            frees_bytes=(each.need_bytes - change.need_bytes) * replicas,
            before="weights as stored",
            after=f"weights in {change.value}",
            by_hand=f"compare its answers first: bytes say nothing of quality. Then pull a checkpoint in "
            f"{change.value}, or have the engine quantize it (engine_args.quantization), and ask "
            f"`heliosctl estimate {each.model} --precision {change.value}` for the account",
            gib_hour_price=facts.gib_hour_price,
        )


RULE = Rule("precision", "weights that a narrower precision would shrink", LEAST_HOURS, _judge)
