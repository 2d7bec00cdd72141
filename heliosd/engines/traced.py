"""What an engine needs to join the traces of the requests that it answers, and to tell of its start in one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

WITHOUT_COLLECTOR = "none"
"""Spans that vLLM makes in this process go where ours go, so to vLLM it only matters that there is an endpoint."""
_EXPORT_TIMEOUT_S = 2
"""An engine's process that ends tells the rest of its spans first, and a collector that is down must not hold it up."""


@dataclass(frozen=True, slots=True)
class EngineTracing:
    """`url`: where a collector takes spans; None: there is none, and an engine's own process makes none."""

    url: str | None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    service_name: str = "heliosd"

    @property
    def endpoint(self) -> str:
        """For vLLM's `otlp_traces_endpoint`."""
        return self.url or WITHOUT_COLLECTOR

    def environment(self, traceparent: str) -> dict[str, str]:
        """Of the engine's own process, whose start is a part of the span `traceparent`."""
        if self.url is None or not traceparent:
            return {}
        return {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": ",".join(
                f"{quote(name)}={quote(value)}" for name, value in self.headers.items()
            ),
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": str(_EXPORT_TIMEOUT_S),
            "OTEL_SERVICE_NAME": f"{self.service_name}-engine",
            "traceparent": traceparent,
        }
