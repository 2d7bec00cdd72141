"""What each API key used, as counters: by its name, never its secret."""

from prometheus_client import CollectorRegistry, Counter

from heliosd.core.units import GiB


class KeyUsage:
    """The families of one daemon, since it began."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tokens = Counter(
            "helios_key_tokens",
            "Tokens by API key, as engines count them: prompt, cached (of the prompt's), completion.",
            ["key", "kind"],
            registry=registry,
        )
        self._gib_s = Counter(
            "helios_key_gib_seconds",
            "Device memory times time by API key, shared equally by the requests of a replica; (idle): promised to "
            "replicas that nobody used.",
            ["key"],
            registry=registry,
        )
        self._refused = Counter(
            "helios_key_refusals", "Requests refused for want of budget, by API key.", ["key"], registry=registry
        )

    def tokens(self, key: str, prompt: int, cached: int, completion: int) -> None:
        for kind, number in (("prompt", prompt), ("cached", cached), ("completion", completion)):
            self._tokens.labels(key, kind).inc(number)

    def memory(self, key: str, byte_s: int) -> None:
        self._gib_s.labels(key).inc(byte_s / GiB)

    def refused(self, key: str) -> None:
        self._refused.labels(key).inc()
