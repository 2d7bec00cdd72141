"""/helios/v1/usage: what keys used and what it cost, as JSON, CSV or in the columns of FOCUS."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta

from aiohttp import web

from heliosd.api.asked import json_of
from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Parameter, Route, Scope
from heliosd.api.usage_files import csv_of, focus_of
from heliosd.core.metering import Tokens
from heliosd.core.units import GiB
from heliosd.errors import BadRequest, NotFound
from heliosd.metering import WRITE_S
from heliosd.state.metered import Amount, UsageOf
from heliosd.wire import UsageList, UsageRow

_PARTS = ("key", "model", "day", "device")
_FORMATS = ("json", "csv", "focus")
_SPAN = re.compile(r"(\d{1,5})d")


async def usage(request: web.Request, parts: Parts) -> web.StreamResponse:
    if parts.metering is None:
        raise NotFound("cannot tell what was used: this node does not meter it")
    today = date.fromisoformat(parts.metering.day())
    since = _day(request, "since", today.replace(day=1), today)
    until = _day(request, "until", today, today)
    by, wanted = request.query.get("by", ""), request.query.get("format", "json")
    apart = tuple(filter(None, by.split(",")))
    if wrong := [each for each in apart if each not in _PARTS]:
        raise BadRequest(f"cannot tell usage apart by {wrong[0]!r}: say {', '.join(_PARTS)}", param="by")
    if wanted not in _FORMATS:
        raise BadRequest(f"cannot give usage as {wanted!r}: say {', '.join(_FORMATS)}", param="format")
    await parts.metering.write()
    table = parts.metering.table
    rows = await table.read(since.isoformat(), until.isoformat())
    if wanted == "csv":
        return web.Response(text=csv_of(_together(rows, apart or _PARTS)), content_type="text/csv")
    if wanted == "focus":
        return web.Response(text=focus_of(_together(rows, _PARTS), parts.identity.name), content_type="text/csv")
    counted: Tokens = await table.counted(since.isoformat(), until.isoformat())
    return json_of(
        UsageList(
            since=since.isoformat(),
            until=until.isoformat(),
            usage=_together(rows, apart),
            engine_prompt_tokens=counted.prompt,
            engine_completion_tokens=counted.completion,
            uncertain_s=WRITE_S,
        )
    )


def _day(request: web.Request, name: str, default: date, today: date) -> date:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        if span := _SPAN.fullmatch(text):
            return today - timedelta(days=int(span[1]))
        return date.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        now = datetime.now(UTC).date()
        raise BadRequest(
            f"cannot read {name}={text}: a day such as {now} (UTC), or so many days ago such as 7d, is expected",
            param=name,
        ) from error


def _together(rows: Iterable[tuple[UsageOf, Amount]], apart: tuple[str, ...]) -> list[UsageRow]:
    """Rows that agree in `apart` added up; those in different currencies never are."""
    reads: dict[str, Callable[[UsageOf], str]] = {
        "day": lambda of: of.day,
        "key": lambda of: of.account,
        "model": lambda of: of.model,
        "device": lambda of: of.device,
    }
    sums: dict[tuple[str, ...], Amount] = {}
    for of, amount in rows:
        group = (*(read(of) if name in apart else "" for name, read in reads.items()), of.currency)
        sums[group] = sums.get(group, Amount()).plus(amount)
    return [_row(dict(zip((*reads, "currency"), group, strict=True)), sums[group]) for group in sorted(sums)]


def _row(named: dict[str, str], amount: Amount) -> UsageRow:
    return UsageRow(
        **named,
        requests=amount.requests,
        prompt_tokens=amount.tokens.prompt,
        cached_tokens=amount.tokens.cached,
        completion_tokens=amount.tokens.completion,
        gib_s=amount.byte_s / GiB,
        memory_cost=amount.cost.memory,
        prompt_cost=amount.cost.prompt,
        completion_cost=amount.cost.completion,
        cost=amount.cost.total,
    )


ROUTES = (
    Route(
        "GET",
        "/helios/v1/usage",
        usage,
        Scope.ADMIN,
        "What API keys used, and what it cost.",
        Answer("usage; with `format` csv or focus, text/csv", UsageList),
        parameters=(
            Parameter("by", "string", "key, model, day, device, or several with commas; left out: all together"),
            Parameter(
                "since", "string", "the first day (UTC), or so many days ago, such as 7d; else the month's first"
            ),
            Parameter("until", "string", "the last day; else today"),
            Parameter("format", "string", "json, csv, or focus (FOCUS 1.2 as CSV, one row for each charge of a day)"),
        ),
        detail=(
            "Tokens are those that engines count, also of answers broken off. What this node served, for itself and "
            "for peers."
        ),
    ),
)
