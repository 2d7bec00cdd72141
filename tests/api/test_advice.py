"""Recommendations over HTTP: from a history that was made, with estimates, put off and shown again."""

import time
from dataclasses import replace
from typing import Any

from heliosd.api.parts import History
from heliosd.core.hours import WANTED, ModelHour, PlaceHour, Rows
from heliosd.core.units import GiB
from heliosd.core.week import hour_of
from heliosd.estimation.known import known_from
from heliosd.lease import Judgement
from heliosd.wire import AdviceList
from tests.api.test_estimate import CONFIG
from tests.api.world import FOOTPRINT, World

PATH = "/helios/v1/recommendations"


def history_of(it: World) -> History:
    assert it.parts.history is not None
    return it.parts.history


async def remember(it: World, hours: int, requests: int = 0, **asked: Any) -> None:
    """So many hours until now, in each of which `tiny` was asked for so often."""
    now = hour_of(time.time())
    span = range(now - hours + 1, now + 1)
    models = [ModelHour(hour, "tiny", requests, **asked) for hour in span] if requests else []
    places = [PlaceHour(hour, place, 9 * GiB, 78 * GiB) for hour in span for place in (WANTED, "g0")]
    await history_of(it).hours.add(Rows(tuple(models), tuple(places)))


async def advice(it: World, **query: str) -> AdviceList:
    async with it.local.get(PATH, params=query) as response:
        assert response.status == 200, await response.text()
        return AdviceList.model_validate(await response.json())


async def test_without_history_it_says_what_is_missing(it: World) -> None:
    found = await advice(it)
    assert found.recommendations == [] and found.hours == 0
    assert "not enough history: 0 hours of 168" in {each.why for each in found.quiet}


async def test_a_pin_is_named_priced_put_off_and_gone_when_it_is_taken_away(it: World) -> None:
    it.node.wanted.pins["tiny"] = 2
    await remember(it, 24 * 29)
    found = await advice(it)
    (pin,) = [each for each in found.recommendations if each.rule == "unused_pin"]
    assert pin.frees_bytes == 2 * FOOTPRINT.total_bytes
    assert "assumed list prices" in found.price_source and found.gib_hour_price is not None
    assert (pin.calls[0].method, pin.calls[0].path) == ("DELETE", "/helios/v1/pins/tiny")
    (dear,) = [each for each in (await advice(it, gib_hour_price="1")).recommendations if each.id == pin.id]
    assert dear.money_per_month == 730 * pin.frees_bytes / GiB

    async with it.local.put(f"{PATH}/{pin.id}/put_off", json={"for_s": 3600}) as response:
        assert (await response.json())["until"] > time.time() + 3000
    hidden = await advice(it)
    assert [each.id for each in hidden.put_off] == [pin.id] and pin not in hidden.recommendations
    async with it.local.delete(f"{PATH}/{pin.id}/put_off") as response:
        assert response.status == 200
    assert [each.id for each in (await advice(it)).recommendations if each.rule == "unused_pin"] == [pin.id]

    async with it.local.delete(pin.calls[0].path) as response:
        assert response.status == 200
    assert "unused_pin" not in {each.rule for each in (await advice(it)).recommendations}


async def test_settings_and_precision_are_estimated(it: World) -> None:
    await remember(it, 24 * 29, requests=10, most_at_once=2, longest_tokens=500, most_replicas=1)
    read = known_from(CONFIG, ())
    it.store.knowledge["tiny"] = read
    judge = it.node.judge

    async def judged(ref: Any, *, max_model_len: int | None = None, max_num_seqs: int | None = None) -> Judgement:
        found = await judge(ref, max_model_len=max_model_len or 131072)
        per_device = replace(FOOTPRINT, kv_cache_bytes=found.max_model_len * 2**17)
        if max_num_seqs:
            per_device = replace(per_device, overhead_bytes=FOOTPRINT.overhead_bytes // 2)
        return replace(found, read=read.model, per_device=per_device, max_num_seqs=max_num_seqs or 256)

    it.node.judge = judged  # type: ignore[method-assign,assignment]
    found = {each.rule: each for each in (await advice(it)).recommendations}
    length, seqs, precision = (found[rule] for rule in ("long_context", "many_sequences", "precision"))
    assert (length.settings[0].key, length.settings[0].after) == ('models."tiny".max_model_len', 4096)
    assert length.frees_bytes == (131072 - 4096) * 2**17
    assert seqs.settings[0].after == 8
    assert precision.title == "serve tiny in fp8" and 5 * GiB < precision.frees_bytes < 8 * GiB
    assert precision.by_hand and not precision.calls


async def test_bad_requests_are_told(it: World) -> None:
    async with it.local.get(PATH, params={"gib_hour_price": "dear"}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "bad_price")
    async with it.local.put(f"{PATH}/unused_pin:no/such/put_off", json={"for_s": 60}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "advice_not_found")
    async with it.local.put(f"{PATH}/x/put_off", json={"for_s": -1}) as response:
        assert response.status == 400
    async with it.local.delete(f"{PATH}/x/put_off") as response:
        assert response.status == 404
