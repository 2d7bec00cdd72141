"""Dashboards for Grafana, made of lists of panels: what to look at, in PromQL.

    python -m heliosd.telemetry.dashboards systemd/grafana

writes one file for each. `[[…]]` in an expression stands for the choice of machines above the panels.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Unit = Literal["bytes", "s", "percentunit", "short", "reqps", "celsius", "watt", "Bps"]
CHOICE = 'instance=~"$instance"'
RANGE = "$__rate_interval"
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 24


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    """Expressions, each with the legend of its series."""
    unit: Unit = "short"
    stacked: bool = False
    single: bool = False
    """Numbers of now instead of curves."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    name: str
    title: str
    panels: tuple[Panel, ...]

    def expressions(self) -> list[str]:
        """Of all panels, with Grafana's variables in them."""
        return [_filled(query) for panel in self.panels for query, _ in panel.queries]

    def document(self) -> dict[str, Any]:
        """As Grafana imports it."""
        return {
            "uid": f"helios-{self.name}",
            "title": f"Helios: {self.title}",
            "tags": ["helios"],
            "schemaVersion": 39,
            "editable": True,
            "refresh": "15s",
            "time": {"from": "now-3h", "to": "now"},
            "templating": {"list": [_DATA_SOURCE, _INSTANCE]},
            "links": [{"type": "dashboards", "tags": ["helios"], "asDropdown": True, "title": "Helios"}],
            "panels": [_panel(panel, number) for number, panel in enumerate(self.panels)],
        }


_DATA_SOURCE = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
_INSTANCE = {
    "name": "instance",
    "type": "query",
    "label": "machines",
    "datasource": {"type": "prometheus", "uid": "${datasource}"},
    "query": {"query": "label_values(helios_build_info, instance)", "refId": "instances"},
    "refresh": 2,
    "multi": True,
    "includeAll": True,
    "allValue": ".*",
    "current": {"text": "All", "value": "$__all"},
}


def _filled(query: str) -> str:
    return query.replace("[[]]", f"{{{CHOICE}}}").replace("[[", f"{{{CHOICE},").replace("]]", "}")


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    per_row = _COLUMNS // _WIDTH
    custom = {"fillOpacity": 30 if panel.stacked else 5, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    return {
        "id": number + 1,
        "type": "stat" if panel.single else "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": number % per_row * _WIDTH, "y": number // per_row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": _filled(query), "legendFormat": legend, "instant": panel.single}
            for place, (query, legend) in enumerate(panel.queries)
        ],
    }


def write(folder: Path) -> None:
    """One file for each dashboard."""
    from heliosd.telemetry.dashboard_panels import DASHBOARDS

    folder.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard.document(), indent=1) + "\n"
        (folder / f"{dashboard.name}.json").write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m heliosd.telemetry.dashboards FOLDER")
    write(Path(sys.argv[1]))
