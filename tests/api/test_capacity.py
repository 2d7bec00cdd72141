"""Capacity over HTTP: rows of devices and of all models, and what a card or a precision would change."""

import time
from typing import Any

from heliosd.core.hours import WANTED, ModelHour, PlaceHour, Rows
from heliosd.core.units import GiB
from heliosd.core.week import hour_of
from heliosd.estimation.known import known_from
from heliosd.wire import CapacityView
from tests.api.test_advice import history_of
from tests.api.test_estimate import CONFIG
from tests.api.world import World, stored

PATH = "/helios/v1/capacity"
DAY_S = 86400.0


async def grow(it: World, days: int) -> None:
    """From 20 GiB on by one a day, until now; `org/known` is what is wanted."""
    now = hour_of(time.time())
    first = now - days * 24 + 1
    span = range(first, now + 1)
    places = [
        PlaceHour(hour, place, 20 * GiB + (hour - first) * GiB // 24, 78 * GiB)
        for hour in span
        for place in ("g0", WANTED)
    ]
    models = [ModelHour(hour, "org/known", 5, 1, 10, 1, 20 * GiB) for hour in span]
    await history_of(it).hours.add(Rows(tuple(models), tuple(places)))


async def view(it: World, **query: Any) -> CapacityView:
    async with it.local.get(PATH, params=query) as response:
        assert response.status == 200, await response.text()
        return CapacityView.model_validate(await response.json())


async def test_nothing_is_told_too_early(it: World) -> None:
    await grow(it, 1)
    device, wanted = (await view(it)).rows
    assert (device.place, wanted.place) == ("g0", "wanted")
    assert (device.state, device.note) == ("unknown", "not enough history: 24 hours of 48")


async def test_growth_fills_a_device(it: World) -> None:
    await grow(it, 30)
    found = await view(it, horizon_days=90, device="g0")
    (row,) = found.rows
    assert row.state == "in_sight" and row.trend is not None and abs(row.trend.bytes_per_day - GiB) < GiB // 50
    assert row.full_in_s is not None and abs(row.full_in_s - 28 * DAY_S) < 2 * DAY_S
    assert len(row.by_hour) == 24
    assert (await view(it, horizon_days=7, device="g0")).rows[0].state == "not_in_sight"


async def test_a_card_puts_it_off_and_so_does_a_precision(it: World) -> None:
    it.store.held.append(stored("org/known"))
    it.store.knowledge["org/known"] = known_from(CONFIG, ())
    it.node.engines["org/known"] = it.node.engines["tiny"]
    await grow(it, 30)
    alone = (await view(it, horizon_days=300)).rows[1].full_in_s
    card = (await view(it, **{"horizon_days": 300, "with": "1xH100"})).what_if
    fp8 = (await view(it, **{"horizon_days": 300, "with": "fp8"})).what_if
    assert alone is not None and card is not None and fp8 is not None
    assert card.wanted.full_in_s is not None and card.wanted.full_in_s > alone + 60 * DAY_S
    assert card.models[0].then_bytes is not None and card.need_ratio == 1.0
    assert 0.5 < fp8.need_ratio < 0.75 and fp8.models[0].then_bytes is not None
    assert fp8.wanted.full_in_s is not None and fp8.wanted.full_in_s > alone


async def test_nonsense_is_told(it: World) -> None:
    for query, status, code in (
        ({"device": "g9"}, 404, "device_not_found"),
        ({"with": "3xAbacus"}, 400, "unknown_gpu"),
        ({"with": "0xH100"}, 400, "bad_request"),
        ({"horizon_days": "0"}, 400, "bad_request"),
    ):
        async with it.local.get(PATH, params=query) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (status, code), query
