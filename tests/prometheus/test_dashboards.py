"""The dashboards are what the code says, and a real Prometheus has an answer for each of their expressions."""

import json
import math
import re
import threading
from pathlib import Path

import pytest

from heliosd.telemetry.alerts import ALERTS
from heliosd.telemetry.catalogue import catalogue
from heliosd.telemetry.dashboard_panels import DASHBOARDS
from heliosd.telemetry.dashboards import RANGE
from tests.e2e.daemon import Daemon, heliosd, until
from tests.e2e.test_metrics import bring, chat
from tests.prometheus.server import Prometheus, scraping
from tests.prometheus.test_rules import FILE

FOLDER = Path(__file__).parents[2] / "systemd" / "grafana"
FLEET = '[[device]]\nname = "g"\ncount = 2\ncapacity = "8GiB"\n'
CONFIG = '[engines]\nkv_cache = "4GiB"\n[pool]\nresidence_s = 0\nhot_swap = false\n[queue]\npatience_s = 0.1\n'
FAST = '[models."test/{}"]\nengine_args = {{load_s = 0.1, tokens_per_s = 500.0}}\n'
MODELS = ("a", "b", "c")


def test_the_files_are_what_the_code_says() -> None:
    written = {file.stem: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}
    assert written == {each.name: each.document() for each in DASHBOARDS}, "run `make docs`"


def test_panels_have_titles_and_do_not_overlap() -> None:
    for dashboard in DASHBOARDS:
        panels = dashboard.document()["panels"]
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
        assert len(places) == len({panel["title"] for panel in panels}) == len(panels)
        assert all(panel["description"].endswith(".") for panel in panels)


def filled(expression: str) -> str:
    return expression.replace("$instance", ".*").replace(RANGE, "15s")


def known(expression: str) -> bool:
    """Whether its families are of this daemon: not of a part that is not there, nor vLLM's, whose engines only real
    daemons have (tests/e2e/test_engine_metrics.py)."""
    names = {family.name for family in catalogue()}
    asked = {re.sub("_bucket$", "", name) for name in re.findall(r"\bhelios_\w+", expression)}
    return asked <= names and "vllm:" not in expression


def answered(prometheus: Prometheus, expression: str) -> bool:
    return any(not math.isnan(float(each["value"][1])) for each in prometheus.query(filled(expression)))


@pytest.mark.slow
def test_prometheus_answers_every_expression_under_load(prometheus: Path, tmp_path: Path) -> None:
    config = CONFIG + "".join(FAST.format(name) for name in MODELS)
    over = threading.Event()

    def ask(daemon: Daemon, model: str) -> None:
        while not over.is_set():
            chat(daemon, f"test/{model}")

    with heliosd(fleet=FLEET, config=config) as daemon:
        bring(daemon, tmp_path, *MODELS)
        with scraping(prometheus, tmp_path, daemon.url.removeprefix("http://"), FILE) as it:
            clients = [threading.Thread(target=ask, args=(daemon, model)) for model in MODELS]
            for client in clients:
                client.start()
            try:
                wanted = [text for each in DASHBOARDS for text in each.expressions() if known(text)]
                assert len(wanted) > 40
                for each in DASHBOARDS:
                    for expression in each.expressions():
                        it.query(filled(expression))  # also those of parts that are not there are understood
                for expression in wanted:
                    until(lambda: answered(it, expression), 90, f"no answer to {filled(expression)}")  # noqa: B023
                rules = until(lambda: [rule for rule in it.rules() if rule["health"] == "ok"], 30, "no rule was judged")
                assert {rule["name"] for rule in rules} == {alert.name for alert in ALERTS}
            finally:
                over.set()
                for client in clients:
                    client.join()
