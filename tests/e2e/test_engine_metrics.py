"""What a real engine says of itself reaches a real Prometheus, unchanged but for the label `replica`."""

import threading
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from heliosd.telemetry.dashboard_panels import ENGINES
from tests.e2e.conftest import TINY
from tests.e2e.daemon import heliosd, until
from tests.e2e.test_metrics import chat
from tests.prometheus.server import scraping
from tests.prometheus.test_dashboards import answered, filled
from tests.prometheus.test_rules import FILE

pytestmark = pytest.mark.slow

CONFIG = '[engines]\nkv_cache = "64MiB"\npreload = false\n'


def test_the_engines_dashboard_is_answered_while_a_real_engine_serves(
    stock: Path, prometheus: Path, tmp_path: Path
) -> None:
    over = threading.Event()
    with heliosd(config=CONFIG, stock=stock) as daemon:
        assert chat(daemon, TINY) == 200
        families = {each.name: each for each in text_string_to_metric_families(httpx.get(f"{daemon.url}/metrics").text)}
        (tokens,) = [each for each in families["vllm:generation_tokens"].samples if each.name.endswith("_total")]
        assert tokens.labels == {"model_name": TINY, "engine": "0", "replica": "r1"}
        assert tokens.value > 0

        def ask() -> None:
            while not over.is_set():
                chat(daemon, TINY)

        client = threading.Thread(target=ask)
        client.start()
        try:
            with scraping(prometheus, tmp_path, daemon.url.removeprefix("http://"), FILE) as it:
                for expression in ENGINES.expressions():
                    until(lambda: answered(it, expression), 60, f"no answer to {filled(expression)}")  # noqa: B023
        finally:
            over.set()
            client.join()
