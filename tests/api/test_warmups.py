"""What engines compiled, over HTTP and from the command line's side."""

from pathlib import Path

import pytest

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.names import DeviceId
from heliosd.engines.warmup_facts import device_facts, engine_facts
from heliosd.engines.warmup_manifest import key_of
from heliosd.engines.warmups import Warmups
from tests.api.world import World, world

FACTS = {
    **engine_facts("0.32.0"),
    **device_facts(Device(DeviceId("g0"), DeviceKind.SIMULATED, "H100", 1)),
    "revision": "abc",
}
KEY = key_of(FACTS)


@pytest.fixture
def warmups(tmp_path: Path) -> Warmups:
    made = Warmups(tmp_path / "warmups", 10_000)
    made.open()
    engine = made.take(FACTS)
    (engine.folder / "triton" / "kernel.so").write_text("kernel")
    engine.keep()
    engine.release()
    return made


async def test_it_is_listed_packed_taken_in_and_forgotten(warmups: Warmups) -> None:
    async with world(warmups=warmups) as it:
        async with it.local.get("/helios/v1/warmups") as response:
            (kept,) = (await response.json())["warmups"]
        assert (kept["key"], kept["files"], kept["size_bytes"], kept["facts"]["revision"]) == (KEY, 1, 6, "abc")
        async with it.local.get(f"/helios/v1/warmups/{KEY[:6]}") as response:
            packed = await response.read()
        async with it.local.delete(f"/helios/v1/warmups/{KEY}") as response:
            assert response.status == 200
        assert warmups.kept() == {}
        async with it.local.post("/helios/v1/warmups", data=packed) as response:
            assert (response.status, (await response.json())["key"]) == (200, KEY)
        assert list(warmups.kept()) == [KEY]


async def test_what_cannot_be_is_refused_with_a_code(it: World, warmups: Warmups) -> None:
    async with it.local.get("/helios/v1/warmups") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "warmup_not_found")
    async with world(warmups=replace_limit(warmups, 1)) as small:
        async with small.local.get("/helios/v1/warmups/ffff") as response:
            assert (await response.json())["error"]["code"] == "warmup_not_found"
        async with small.local.post("/helios/v1/warmups", data=b"no tar, and too long") as response:
            assert response.status == 400
        async with small.local.post("/helios/v1/warmups", data=b"-") as response:
            assert (await response.json())["error"]["code"] == "warmup_spoiled"


def replace_limit(warmups: Warmups, max_bytes: int) -> Warmups:
    return Warmups(warmups.folder, max_bytes)
