"""/helios/v1/recommendations: what an operator could do better, and what nobody wants to hear of for a while."""

import time

from aiohttp import web

from heliosd.api.advice_facts import gather, list_price
from heliosd.api.asked import body_of, json_of
from heliosd.api.parts import History, Parts
from heliosd.api.plans import plan_of, write_step
from heliosd.api.routes import Answer, Parameter, Route, Scope
from heliosd.core.advice.advise import advise
from heliosd.core.advice.recommendation import Recommendation
from heliosd.errors import BadRequest, NotFound
from heliosd.estimation.catalogue import PRICES_AS_OF
from heliosd.wire import (
    AdviceList,
    AdviceView,
    CallView,
    ChangePlan,
    EvidenceView,
    PutOffAdvice,
    PutOffView,
    QuietRule,
    SettingView,
)

MOST_PRICE = 1e6


async def recommendations(request: web.Request, parts: Parts) -> web.StreamResponse:
    history = history_of(parts)
    price, source = _price(request, parts)
    put_off = await history.put_off.all()
    facts = await gather(parts, history, price)
    said = advise(facts, put_off)
    return json_of(
        AdviceList(
            recommendations=[_view(each) for each in said.found],
            put_off=[_view(each, put_off[each.id]) for each in said.put_off],
            quiet=[QuietRule(rule=each.rule, why=each.why) for each in said.quiet],
            hours=facts.hours,
            window_hours=facts.window_hours,
            gib_hour_price=price,
            price_source=source,
        )
    )


async def put_off(request: web.Request, parts: Parts) -> web.StreamResponse:
    name, history = request.match_info["id"], history_of(parts)
    asked = await body_of(request, PutOffAdvice)
    await _recommended(name, parts)
    until = time.time() + asked.for_s
    await history.put_off.set(name, until)
    parts.journal.note("advice", f"{name} is not to be shown for {asked.for_s / 86400:.3g} days")
    return json_of(PutOffView(id=name, until=until))


async def put_off_plan(request: web.Request, parts: Parts) -> ChangePlan:
    name, asked = request.match_info["id"], await body_of(request, PutOffAdvice)
    await _recommended(name, parts)
    words = f"it would not be shown for {asked.for_s / 86400:.3g} days"
    return plan_of(f"{name} would be put off", [write_step(name, words)])


async def _recommended(name: str, parts: Parts) -> None:
    if name not in {each.id for each in advise(await gather(parts, history_of(parts), None)).found}:
        raise NotFound(
            f"cannot put off {name}: nothing of that name is recommended; `heliosctl recommend` lists what is",
            code="advice_not_found",
        )


async def show_again(request: web.Request, parts: Parts) -> web.StreamResponse:
    name = request.match_info["id"]
    if not await history_of(parts).put_off.remove(name):
        raise NotFound(
            f"cannot show {name} again: it was not put off; `heliosctl recommend -o json` lists what was",
            code="advice_not_found",
        )
    parts.journal.note("advice", f"{name} is shown again")
    return json_of(PutOffView(id=name, until=None))


async def show_again_plan(request: web.Request, parts: Parts) -> ChangePlan:
    name = request.match_info["id"]
    if name not in await history_of(parts).put_off.all():
        raise NotFound(f"cannot show {name} again: it was not put off", code="advice_not_found")
    return plan_of(f"{name} would be shown again", [write_step(name, "it is put off no more", what="remove")])


def history_of(parts: Parts) -> History:
    """Raises NotFound where nobody counts."""
    if parts.history is None:
        raise NotFound("cannot tell: this node does not count what each hour wants", code="not_recorded")
    return parts.history


def _price(request: web.Request, parts: Parts) -> tuple[float | None, str]:
    text = request.query.get("gib_hour_price")
    prices = parts.metering.prices() if parts.metering is not None else None
    if text is None and prices is not None:
        own = prices.gib_of([each.device for each in parts.node.snapshot().devices])
        if own is not None:
            return own, f"[prices] of the configuration, in {prices.currency}"
    if text is None:
        found = list_price(parts.node.snapshot())
        source = f"assumed list prices of these devices in USD, as of {PRICES_AS_OF}"
        return found, "no price of these devices is known" if found is None else source
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price <= MOST_PRICE:
        raise BadRequest(
            f"cannot accept gib_hour_price={text}: a price from 0 to {MOST_PRICE:,.0f} is expected",
            code="bad_price",
            param="gib_hour_price",
        )
    return price, "as asked"


def _view(each: Recommendation, until: float | None = None) -> AdviceView:
    return AdviceView(
        id=each.id,
        rule=each.rule,
        subject=each.subject,
        title=each.title,
        why=each.why,
        evidence=[EvidenceView(name=name, value=value) for name, value in each.evidence],
        frees_bytes=each.frees_bytes,
        where=each.where.value,
        saves_s_per_day=each.saves_s_per_day,
        money_per_month=each.money_per_month,
        before=each.before,
        after=each.after,
        calls=[CallView.model_validate(call, from_attributes=True) for call in each.calls],
        settings=[SettingView.model_validate(one, from_attributes=True) for one in each.settings],
        by_hand=each.by_hand,
        put_off_until=until,
    )


ROUTES = (
    Route(
        "GET",
        "/helios/v1/recommendations",
        recommendations,
        Scope.ADMIN,
        "What could be done better, the most worth first, with the figures that say so.",
        Answer("recommendations, and the rules that cannot say anything yet", AdviceList),
        parameters=(
            Parameter("gib_hour_price", "string", "of memory; default: `[prices]`, else assumed list prices, USD"),
        ),
        detail="A recommendation with `calls` is carried out by them; `settings` are the operator's to write.",
        errors=("bad_price", "not_recorded"),
    ),
    Route(
        "PUT",
        "/helios/v1/recommendations/{id:.+}/put_off",
        put_off,
        Scope.ADMIN,
        "Do not show a recommendation for a while.",
        Answer("until when", PutOffView),
        body=PutOffAdvice,
        errors=("advice_not_found",),
        preview=put_off_plan,
    ),
    Route(
        "DELETE",
        "/helios/v1/recommendations/{id:.+}/put_off",
        show_again,
        Scope.ADMIN,
        "Show it again.",
        Answer("no time", PutOffView),
        errors=("advice_not_found",),
        preview=show_again_plan,
    ),
)
