"""/helios/v1/capacity: when devices will be full, told from what each hour needed, and what would change that."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace

from aiohttp import web

from heliosd.api.advice import history_of
from heliosd.api.asked import json_of, number_of
from heliosd.api.capacity_change import Change, change_of, need_then
from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Parameter, Route, Scope
from heliosd.core.capacity import Projection, project, scaled
from heliosd.core.hours import WANTED, PlaceHour
from heliosd.core.names import DeviceId
from heliosd.core.week import HOUR_S, hour_of
from heliosd.errors import NotFound
from heliosd.wire import CapacityRow, CapacityView, HourOfDayView, TrendView, WhatIf

DAY_HOURS = 24
MOST_DAYS = 366
ALL = "all models that are wanted at once"


async def capacity(request: web.Request, parts: Parts) -> web.StreamResponse:
    history = history_of(parts)
    horizon = number_of(request, "horizon_days", 30, least=1, most=MOST_DAYS) * DAY_HOURS
    devices = {each.device.id: each.device for each in parts.node.snapshot().devices}
    device, change = request.query.get("device"), change_of(request.query.get("with"), parts)
    if device is not None and DeviceId(device) not in devices:
        raise NotFound(
            f"cannot tell of {device}: this node has {', '.join(devices) or 'no device'}", code="device_not_found"
        )
    names: dict[str, str] = {each.id: each.name for each in devices.values() if device in (None, each.id)}
    names |= {} if device else {WANTED: ALL}
    now = hour_of(time.time())
    places = await history.hours.places()
    rows = await asyncio.to_thread(_rows, places, names, now, horizon)
    what_if = await _what_if(parts, places, change, now, horizon) if change else None
    return json_of(CapacityView(horizon_s=horizon * HOUR_S, rows=rows, what_if=what_if))


async def _what_if(parts: Parts, places: tuple[PlaceHour, ...], change: Change, now: int, horizon: int) -> WhatIf:
    needs, ratio = await need_then(parts, await history_of(parts).hours.asked(), change)
    wanted = scaled((row for row in places if row.place == WANTED), ratio, change.more_bytes)
    found = await asyncio.to_thread(project, wanted, now, horizon)
    return WhatIf(
        change=change.words,
        more_bytes=change.more_bytes,
        need_ratio=round(ratio, 4),
        wanted=_row(WANTED, ALL, replace(found, by_hour=())),
        models=needs,
    )


def _rows(places: Iterable[PlaceHour], names: dict[str, str], now: int, horizon: int) -> list[CapacityRow]:
    series: dict[str, list[PlaceHour]] = {place: [] for place in names}
    for row in places:
        if row.place in series:
            series[row.place].append(row)
    return [_row(place, name, project(series[place], now, horizon)) for place, name in names.items()]


def _row(place: str, name: str, found: Projection) -> CapacityRow:
    return CapacityRow(
        place=place,
        name=name,
        state=found.state,
        room_bytes=found.room_bytes,
        peak_bytes=found.peak_bytes,
        expected_bytes=found.expected_bytes,
        trend=found.trend and TrendView(bytes_per_day=found.trend.slope, low=found.trend.low, high=found.trend.high),
        full_in_s=_seconds(found.full_in_hours),
        earliest_s=_seconds(found.earliest_hours),
        latest_s=_seconds(found.latest_hours),
        hours=found.hours,
        note=found.note,
        by_hour=[
            HourOfDayView(hour=each.hour, seen_bytes=each.seen_bytes, expected_bytes=each.expected_bytes)
            for each in found.by_hour
        ],
    )


def _seconds(hours: int | None) -> float | None:
    return None if hours is None else hours * HOUR_S


ROUTES = (
    Route(
        "GET",
        "/helios/v1/capacity",
        capacity,
        Scope.ADMIN,
        "When each device will be full, and what another card or precision would change.",
        Answer("a row for each device, and one for all models together", CapacityView),
        parameters=(
            Parameter("horizon_days", "integer", f"how far to look ahead; default: 30, at most {MOST_DAYS}"),
            Parameter("device", "string", "only this one"),
            Parameter("with", "string", "`1xH100`: with such cards besides; `fp8`: with weights in that precision"),
        ),
        detail="Told from what each hour of the last three months needed: its middle by the hour of the week, and a "
        "robust trend of the days of each weekday. With less than two days of history nothing is told, with less than "
        "two weeks no trend. Hours in which the daemon did not run say nothing. What an hour needed counts KV caches "
        "only as far as they were used, or as one longest request needs.",
        errors=("device_not_found", "unknown_gpu", "bad_precision", "not_recorded"),
    ),
)
