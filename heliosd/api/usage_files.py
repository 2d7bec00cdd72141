"""Usage as files: plain CSV, and the columns of the FinOps Open Cost and Usage Specification (FOCUS) 1.2 as CSV.

The columns are those that FOCUS 1.2 calls mandatory, and of the others those that are known here. What is null is an
empty field.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta

from heliosd.wire import UsageRow

FOCUS_VERSION = "1.2"
MANDATORY = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
)
MORE = (
    "ChargeFrequency",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedUnitPrice",
    "ListUnitPrice",
    "PricingCategory",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "x_Device",
    "x_Requests",
)
_HOUR_S = 3600


def csv_of(rows: Iterable[UsageRow]) -> str:
    """A line of names, then one for each row."""
    return _written(tuple(UsageRow.model_fields), (row.model_dump() for row in rows))


def focus_of(rows: Iterable[UsageRow], node: str) -> str:
    """Up to four charges for each row, which must be of one day: memory, and tokens of each kind."""
    return _written((*MANDATORY, *MORE), (charge for row in rows for charge in _charges(row, node)))


def _charges(row: UsageRow, node: str) -> Iterator[dict[str, object]]:
    fresh, prompt = row.prompt_tokens - row.cached_tokens, row.prompt_cost
    of = f"of {row.model}" + (f" by {row.key}" if row.key else "")
    if row.gib_s:
        hours = row.gib_s / _HOUR_S
        what = f"device memory {of} on {row.device or 'an unknown device'}"
        yield _charge(row, node, "memory", hours, "GiB-Hours", row.memory_cost, what)
    if row.prompt_tokens:
        cached = f", {row.cached_tokens} of them cached and {fresh} not" if row.cached_tokens else ""
        yield _charge(row, node, "prompt-tokens", row.prompt_tokens, "Tokens", prompt, f"prompts {of}{cached}")
    if row.completion_tokens:
        cost = row.completion_cost
        yield _charge(row, node, "completion-tokens", row.completion_tokens, "Tokens", cost, f"answers {of}")


def _charge(
    row: UsageRow, node: str, meter: str, quantity: float, unit: str, cost: float, text: str
) -> dict[str, object]:
    day = date.fromisoformat(row.day)
    month = day.replace(day=1)
    sku = f"{meter}/{row.device}" if meter == "memory" else f"{meter}/{row.model}"
    return {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost),
        **dict.fromkeys(("ContractedUnitPrice", "ListUnitPrice"), cost / quantity),
        **dict.fromkeys(("PricingQuantity", "ConsumedQuantity"), quantity),
        **dict.fromkeys(("PricingUnit", "ConsumedUnit"), unit),
        **dict.fromkeys(("BillingAccountId", "BillingAccountName"), node),
        **dict.fromkeys(("InvoiceIssuerName", "ProviderName", "PublisherName"), "Helios"),
        **dict.fromkeys(("SubAccountId", "SubAccountName"), row.key),
        **dict.fromkeys(("ResourceId", "ResourceName"), row.model),
        **dict.fromkeys(("SkuId", "SkuPriceId"), sku),
        "BillingCurrency": row.currency,
        "BillingPeriodStart": _midnight(month),
        "BillingPeriodEnd": _midnight((month + timedelta(days=32)).replace(day=1)),
        "ChargePeriodStart": _midnight(day),
        "ChargePeriodEnd": _midnight(day + timedelta(days=1)),
        "ChargeCategory": "Usage",
        "ChargeDescription": text,
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": "Standard",
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Helios inference",
        "ServiceSubcategory": "Generative AI",
        "SkuMeter": meter,
        "x_Device": row.device,
        "x_Requests": row.requests,
    }


def _midnight(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _written(columns: tuple[str, ...], rows: Iterable[Mapping[str, object]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _plain(value: object) -> object:
    """Numbers without exponents or needless digits. A text that a spreadsheet would take for a formula is defused."""
    if isinstance(value, float):
        return f"{value:.12f}".rstrip("0").rstrip(".")
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value
