"""Usage as files that other programs read: a line for each row, or a charge for each meter in FOCUS's columns."""

import csv
import io

import pytest

from heliosd.api.usage_files import MANDATORY, csv_of, focus_of
from heliosd.wire import UsageRow

ROW = UsageRow(
    day="2026-12-31", key="ann", model="org/m", device="H100", currency="EUR", requests=2, prompt_tokens=70,
    cached_tokens=20, completion_tokens=40, gib_s=7200.0, memory_cost=3.0, prompt_cost=0.25, completion_cost=0.5,
    cost=3.75,
)  # fmt: skip


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_every_field_by_its_name() -> None:
    (row,) = read(csv_of([ROW]))
    assert list(row) == list(UsageRow.model_fields)
    assert (row["key"], row["prompt_tokens"], row["gib_s"], row["cost"]) == ("ann", "70", "7200", "3.75")


def test_focus_has_a_charge_for_each_meter_and_all_mandatory_columns() -> None:
    memory, prompt, answer = read(focus_of([ROW], "west"))
    for charge in (memory, prompt, answer):
        assert set(MANDATORY) <= set(charge)
        assert all(charge[name] for name in MANDATORY if name != "ChargeClass")
        assert charge["ChargePeriodStart"] == "2026-12-31T00:00:00Z"
        assert charge["ChargePeriodEnd"] == charge["BillingPeriodEnd"] == "2027-01-01T00:00:00Z"
        assert charge["BillingPeriodStart"] == "2026-12-01T00:00:00Z"
        assert float(charge["PricingQuantity"]) * float(charge["ListUnitPrice"]) == pytest.approx(
            float(charge["ListCost"]), rel=1e-6
        )
    assert (memory["PricingQuantity"], memory["PricingUnit"], memory["BilledCost"]) == ("2", "GiB-Hours", "3")
    assert (prompt["ConsumedQuantity"], prompt["ConsumedUnit"]) == ("70", "Tokens")
    assert sum(float(each["BilledCost"]) for each in (memory, prompt, answer)) == pytest.approx(ROW.cost)
    assert {each["SubAccountId"] for each in (memory, prompt, answer)} == {"ann"}


def test_what_was_not_used_is_no_charge() -> None:
    assert (
        read(focus_of([ROW.model_copy(update={"prompt_tokens": 0, "completion_tokens": 0, "gib_s": 0.0})], "w")) == []
    )


def test_a_name_is_never_a_formula() -> None:
    (row,) = read(csv_of([ROW.model_copy(update={"key": "=1+1"})]))
    assert row["key"] == "'=1+1"
