"""The rules that are shipped: what the code says, accepted by promtool, and firing when and only when they should."""

import json
import subprocess
from pathlib import Path

import pytest

from heliosd.telemetry.alert_states import AlertStates
from heliosd.telemetry.alerts import ALERTS, RUNBOOK, rules
from heliosd.telemetry.conditions import Labels, Reading
from tests.prometheus.cases import CASES, STEP_S, Case, steps

ROOT = Path(__file__).parents[2]
FILE = ROOT / "systemd" / "prometheus" / "helios.rules.yml"


def promql_test(case: Case) -> dict[str, object]:
    alert = next(each for each in ALERTS if each.name == case.alert)
    expected = {"severity": alert.severity, **case.labels}
    moments = [{"eval_time": f"{at}s", "alertname": case.alert, "exp_alerts": []} for at in case.quiet_at_s]
    # Notes have numbers in them that Prometheus extrapolates: they are told apart by labels alone.
    firing = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}}) by ({", ".join(expected)})'
    labels = ", ".join(f'{name}="{value}"' for name, value in expected.items())
    return {
        "interval": f"{STEP_S}s",
        "input_series": [{"series": series, "values": _values(told)} for series, told in case.series.items()],
        "alert_rule_test": moments,
        "promql_expr_test": [
            {
                "expr": firing,
                "eval_time": f"{case.fires_at_s}s",
                "exp_samples": [{"labels": f"{{{labels}}}", "value": 1}],
            }
        ],
    }


def _values(told: str) -> str:
    return " ".join(f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}" for value in steps(told))


def test_the_file_is_what_the_code_says() -> None:
    assert FILE.read_text() == rules(), "run `make docs`"


def test_there_is_a_case_for_every_alert() -> None:
    assert [case.alert for case in CASES] == [alert.name for alert in ALERTS]


def test_promtool_accepts_the_rules(promtool: Path) -> None:
    said = subprocess.run([promtool, "check", "rules", FILE], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"{len(ALERTS)} rules found" in said.stdout


def test_the_rules_fire_and_clear_in_prometheus(promtool: Path, tmp_path: Path) -> None:
    document = {
        "rule_files": [str(FILE)],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [promql_test(case) for case in CASES],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(document))
    said = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def named(series: str) -> tuple[str, Labels]:
    name, _, inner = series.rstrip("}").partition("{")
    pairs = [each.replace('"', "").split("=") for each in inner.split(",") if each]
    return name, tuple(sorted((label, value) for label, value in pairs))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_helios_judges_as_prometheus_does(case: Case) -> None:
    states = AlertStates()
    told = {series: steps(values) for series, values in case.series.items()}
    fired: dict[int, set[tuple[str, frozenset[tuple[str, str]]]]] = {}
    for number in range(max(case.fires_at_s, *case.quiet_at_s) // STEP_S + 1):
        samples: dict[str, dict[Labels, float]] = {}
        for series, values in told.items():
            name, labels = named(series)
            if number < len(values):
                samples.setdefault(name, {})[labels] = values[number]
        states.look(Reading(float(number * STEP_S), samples))
        fired[number * STEP_S] = {
            (each.alert.name, frozenset(each.labels)) for each in states.active.values() if each.fired_at is not None
        }
    expected = {(case.alert, frozenset(case.labels.items()))}
    assert fired[case.fires_at_s] == expected
    assert [fired[at] for at in case.quiet_at_s] == [set()] * len(case.quiet_at_s)


def test_every_alert_has_a_runbook_section() -> None:
    text = (ROOT / RUNBOOK).read_text()
    missing = [alert.name for alert in ALERTS if f"\n### {alert.name}\n" not in text]
    assert not missing, f"{RUNBOOK} has no section for {missing}"


def test_summaries_name_only_labels_that_the_condition_has() -> None:
    for alert in ALERTS:
        case = next(each for each in CASES if each.alert == alert.name)
        said = alert.said(tuple(case.labels.items()), 1.0)
        assert "{" not in said and "  " not in said
