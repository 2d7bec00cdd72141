"""Models that are served with far longer a context than anybody asks for: the KV cache is sized for it."""

from collections.abc import Iterator

from heliosd.core.advice.facts import Facts, ModelFacts
from heliosd.core.advice.recommendation import Recommendation, Rule, Setting
from heliosd.core.advice.words import count, model_key, power_of_two
from heliosd.core.units import MiB, format_bytes

LEAST_HOURS = 7 * 24
LEAST_REQUESTS = 500
HEADROOM = 4
"""So many times the longest that was seen: a body's four characters may be four tokens, as in Chinese."""
SHORTEST = 4096
WORTH_BYTES = 256 * MiB


def proposed(each: ModelFacts) -> int | None:
    """The context that would do; None where nothing says so: a quarter of what is served at most, or it is left."""
    if each.requests < LEAST_REQUESTS or not each.texts_only or not each.max_model_len or not each.longest_tokens:
        return None
    enough = max(SHORTEST, power_of_two(each.longest_tokens * HEADROOM))
    return enough if enough <= each.max_model_len // 4 else None


def _judge(facts: Facts) -> Iterator[Recommendation]:
    for each in facts.models:
        length, change = proposed(each), each.shorter
        if length is None or change is None or change.value != length:
            continue
        freed = each.need_bytes - change.need_bytes
        if freed < WORTH_BYTES:
            continue
        replicas = max(1, each.most_replicas, each.pinned, each.min_replicas)
        yield Recommendation(
            rule=RULE.name,
            subject=each.model,
            title=f"serve {each.model} with a context of {length:,} tokens",
            why=f"the longest of {count(each.requests, 'request')} could take {each.longest_tokens:,} tokens, and "
            f"the KV cache is sized for {each.max_model_len:,}",
            evidence=(
                ("longest request", f"{each.longest_tokens:,} tokens, prompt and answer, {facts.window}"),
                ("requests", f"{each.requests:,}"),
                ("a replica takes", f"{format_bytes(each.need_bytes)}; then {format_bytes(change.need_bytes)}"),
                ("headroom", f"{HEADROOM} times the longest, at least"),
            ),
            frees_bytes=freed * replicas,
            before=f"max_model_len {each.max_model_len:,}",
            after=f"max_model_len {length:,}: longer requests are refused",
            settings=(Setting(model_key(each.model, "max_model_len"), f"{each.max_model_len}", length),),
            gib_hour_price=facts.gib_hour_price,
        )


RULE = Rule("long_context", "contexts longer than anybody asks for", LEAST_HOURS, _judge)
