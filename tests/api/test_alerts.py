"""GET /helios/v1/alerts and the doctor, with a fault staged in the metrics the daemon itself judges."""

from heliosd.telemetry.alerts import ALERTS
from tests.api.world import World


async def alerts(it: World) -> dict[str, object]:
    async with it.local.get("/helios/v1/alerts") as response:
        assert response.status == 200
        return dict(await response.json())


async def doctor(it: World) -> dict[str, dict[str, object]]:
    async with it.local.get("/helios/v1/doctor") as response:
        return {check["name"]: check for check in (await response.json())["checks"]}


async def test_nothing_fires_in_a_healthy_node(it: World) -> None:
    await it.alerts.look()
    found = await alerts(it)
    assert found["alerts"] == []
    rules = found["rules"]
    assert isinstance(rules, list)
    assert [rule["name"] for rule in rules] == [alert.name for alert in ALERTS]
    assert rules[0]["condition"].startswith("helios_device_free_bytes + ")
    assert (await doctor(it))["alerts"]["ok"] is True


async def test_what_fires_is_shown_journalled_and_found_by_the_doctor(it: World) -> None:
    await it.alerts.look()
    it.parts.metrics.reasons.failed("serving", "CUDA out of memory. Tried to allocate 2 GiB.")
    await it.alerts.look()
    (one,) = (await alerts(it))["alerts"]  # type: ignore[misc]
    assert (one["name"], one["state"], one["severity"]) == ("HeliosOutOfMemory", "firing", "critical")
    assert one["labels"] == {"memory": "device"}
    assert one["summary"] == "within a quarter of an hour 1 engines died for want of device memory"
    assert abs(one["since"] - one["fired_at"]) < 1
    finding = (await doctor(it))["alert HeliosOutOfMemory"]
    assert finding["ok"] is False
    assert "docs/operations.md#heliosoutofmemory" in str(finding["advice"])
    await it.journal.flushed()
    (entry,) = await it.journal.read(kinds=["alert"])
    assert entry.message.startswith("HeliosOutOfMemory fires: ")
    assert entry.detail["state"] == "firing"
    async with it.http.get("/metrics") as response:
        text = await response.text()
    assert 'helios_alerts_firing{alert="HeliosOutOfMemory"} 1.0' in text
    assert 'helios_alerts_firing{alert="HeliosDiskFull"} 0.0' in text


async def test_the_disks_are_looked_at(it: World) -> None:
    async with it.http.get("/metrics") as response:
        text = await response.text()
    assert 'helios_disk_free_bytes{place="state"}' in text
    assert 'helios_database_bytes{file="main"}' in text
    assert 'helios_cluster_members{state="alive"} 1.0' in text
