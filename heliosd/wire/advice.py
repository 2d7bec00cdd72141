"""Recommendations, and what becomes of them."""

from typing import Any, Literal

from pydantic import Field

from heliosd.wire.base import Asked, Wire


class EvidenceView(Wire):
    name: str
    value: str


class CallView(Wire):
    """Of this API: what carries a recommendation out."""

    method: Literal["PUT", "POST", "DELETE"]
    path: str
    body: dict[str, Any] | None = None


class SettingView(Wire):
    key: str = Field(description="of the configuration, dotted as TOML writes it")
    before: str
    after: int | float | bool | str


class AdviceView(Wire):
    id: str = Field(description="the rule and its subject; the same as long as it says the same of the same")
    rule: str
    subject: str
    title: str = Field(description="what to do")
    why: str
    evidence: list[EvidenceView] = Field(description="the figures it rests on")
    frees_bytes: int
    where: Literal["device", "host", "disk"] = Field(description="whose bytes")
    saves_s_per_day: float = Field(description="of waiting for starts; below zero: it costs so much")
    money_per_month: float | None = Field(description="what the bytes of devices cost; none where no price is known")
    before: str
    after: str
    calls: list[CallView] = Field(description="that carry it out, in their order")
    settings: list[SettingView] = Field(description="of the configuration, which nobody but the operator writes")
    by_hand: str = Field(description="what only a person can do")
    put_off_until: float | None = Field(None, description="seconds since the epoch")


class QuietRule(Wire):
    rule: str
    why: str = Field(description="what is missing for it to say anything")


class AdviceList(Wire):
    recommendations: list[AdviceView] = Field(description="the most worth first")
    put_off: list[AdviceView] = Field(description="that nobody wants to see now")
    quiet: list[QuietRule]
    hours: int = Field(description="that were counted within the window")
    window_hours: int
    gib_hour_price: float | None = Field(description="of device memory, as it was reckoned with")
    price_source: str = Field(description="where that is from")


class PutOffAdvice(Asked):
    for_s: float = Field(gt=0, le=10 * 366 * 86400, description="how long it is not shown, in seconds")


class PutOffView(Wire):
    id: str
    until: float | None = Field(description="seconds since the epoch; none: it is shown again")
