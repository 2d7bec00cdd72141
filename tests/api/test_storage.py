"""POST /helios/v1/doctor/storage."""

from dataclasses import replace

from heliosd.api.admin import doctor_storage
from heliosd.core.storage_speed import Speed
from heliosd.storage_check import StorageReport
from tests.api.world import World


async def test_it_is_measured_and_noted(it: World) -> None:
    async def measure() -> StorageReport:
        speeds = (Speed("read", 2**30, 2**33), Speed("direct", None, 1.0, "the file system cannot"))
        return StorageReport("model.safetensors of tiny", 2**28, speeds, "helios")

    parts = replace(it.parts, measure_storage=measure)
    answer = await doctor_storage(None, parts)  # type: ignore[arg-type]
    assert b'"load_format":"helios"' in answer.body.replace(b": ", b":")  # type: ignore[attr-defined]
    assert b"the file system cannot" in answer.body  # type: ignore[attr-defined]
    await it.journal.flushed()
    [event] = [event for event in await it.journal.read() if event.kind == "storage"]
    assert "read 1.0 GiB/s" in event.message
    assert "engines load with helios" in event.message


async def test_where_nothing_is_loaded_it_says_so(it: World) -> None:
    async with it.local.post("/helios/v1/doctor/storage") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "no_large_file"
