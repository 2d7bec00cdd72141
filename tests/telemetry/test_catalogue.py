"""docs/metrics.md is what the code says, and every label's bound is told."""

from pathlib import Path

from heliosd.telemetry.alerts import NAMES
from heliosd.telemetry.catalogue import LABELS, WHEN, catalogue, page

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
ELSEWHERE: set[str] = set()
"""Families of alerts that are told by the parts of the node that judge them."""


def test_the_page_is_what_the_code_says() -> None:
    assert DOCS.read_text() == page(), "run `make docs`"


def test_every_label_is_bounded_and_no_bound_is_of_nothing() -> None:
    assert {label for family in catalogue() for label in family.labels} == LABELS.keys()


def test_what_comes_later_exists() -> None:
    assert WHEN.keys() <= {family.name.removesuffix("_total") for family in catalogue()}


def test_alerts_look_at_families_that_exist() -> None:
    assert {family.name for family in catalogue()} >= NAMES - ELSEWHERE
