"""The recording over HTTP: all of it as it is, or why there is none."""

from tests.api.world import World, world


async def test_it_comes_as_it_is(it: World) -> None:
    async with it.local.get("/helios/v1/recording") as response:
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        assert await response.text() == '{"helios": "1"}\n{"event": 1}\n'
    async with it.local.get("/metrics") as response:
        text = await response.text()
    assert "helios_recorded_events_total 3.0" in text and "helios_recorded_events_lost_total 1.0" in text


async def test_one_that_is_switched_off_says_so() -> None:
    async with world(recorded=False) as it, it.local.get("/helios/v1/recording") as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (404, "not_recorded") and "recording.enabled" in error["message"]
