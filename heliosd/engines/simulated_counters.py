"""What simulated engines count, under the names of vLLM's counters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from heliosd.core.metering import Tokens
from heliosd.engines.meter import Meter


class Counters:
    """Of one engine, since it started."""

    def __init__(self, model: str, replica: str) -> None:
        self._labels = f'engine="0",model_name="{model}",replica="{replica}"'
        self.total = Tokens()

    @contextmanager
    def sequence(self, prompt: int, meter: Meter | None) -> Iterator[Callable[[], None]]:
        """While the engine works on a prompt of so many tokens; gives what to call for each token that it generates.

        As with vLLM, the prompt counts with the first of them.
        """
        own, more = Tokens(), True

        def count() -> None:
            nonlocal own
            new = Tokens(0 if own.completion else prompt, 0, 1)
            own, self.total = own.plus(new), self.total.plus(new)

        if meter is not None:
            meter.add(lambda: (own, more))
        try:
            yield count
        finally:
            more = False

    def text(self) -> str:
        """In Prometheus text format."""
        rows = (
            ("prompt_tokens", "Tokens of prompts.", self.total.prompt),
            ("prompt_tokens_cached", "Of those, tokens that were in the cache.", self.total.cached),
            ("generation_tokens", "Tokens that were generated.", self.total.completion),
        )
        return "".join(
            f"# HELP vllm:{name}_total {words}\n"
            f"# TYPE vllm:{name}_total counter\n"
            f"vllm:{name}_total{{{self._labels}}} {value}\n"
            for name, words, value in rows
        )
