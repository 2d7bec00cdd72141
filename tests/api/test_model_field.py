"""A body's model is found without holding up the event loop."""

import asyncio
import json

import pytest

from heliosd.api.model_field import find_model


@pytest.mark.parametrize(("size", "at_once"), [(1_000, True), (2_000_000, False)])
async def test_a_large_body_is_read_beside_the_event_loop(size: int, at_once: bool) -> None:
    body = json.dumps({"messages": ["x" * size], "model": "org/tiny@v1"}).encode()
    async with asyncio.TaskGroup() as tasks:
        finding = tasks.create_task(find_model(body, "application/json"))
        await asyncio.sleep(0)
        assert finding.done() is at_once
    assert str(finding.result()[0]) == "org/tiny@v1"
