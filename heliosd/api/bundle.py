"""/helios/v1/doctor/bundle: what a helper needs to see of this node, in one archive without secrets and prompts."""

import asyncio
import sqlite3
import tempfile
from pathlib import Path
from typing import IO, Any

from aiohttp import web

from heliosd.api.admin import findings
from heliosd.api.audit import entry_view
from heliosd.api.changes import AUDIT
from heliosd.api.health import metrics
from heliosd.api.now import snapshot_now
from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Route, Scope
from heliosd.api.views import event_view
from heliosd.errors import HeliosError
from heliosd.support import Bundle, add_machine

_MEDIA = "application/gzip"
_BLOCK_BYTES = 256 * 1024
_ENTRIES = 5000
_LINES = 5000


async def bundle(request: web.Request, parts: Parts) -> web.StreamResponse:
    told = await _told(parts)
    texts = {"metrics.txt": await _metrics(request, parts), "heliosd.log": _log(parts)}
    if parts.reloading is not None:
        texts["config.toml"] = parts.reloading.shown
    secrets: frozenset[str] = parts.reloading.secrets if parts.reloading is not None else frozenset()
    with tempfile.TemporaryFile() as packed:
        await asyncio.to_thread(_pack, packed, told, texts, secrets, parts.identity.state_dir)
        response = web.StreamResponse(headers={"Content-Type": _MEDIA, "Content-Length": str(packed.tell())})
        packed.seek(0)
        await response.prepare(request)
        while block := await asyncio.to_thread(packed.read, _BLOCK_BYTES):
            await response.write(block)
        await response.write_eof()
    return response


async def _told(parts: Parts) -> dict[str, Any]:
    """What the daemon itself knows, by the name of the file it goes to."""
    now = snapshot_now(parts)
    events = await parts.journal.read(limit=_ENTRIES)
    audit = await parts.journal.read(limit=_ENTRIES, kinds=(AUDIT,))
    checks = await findings(parts)
    models = [
        {"ref": str(each.ref), "revision": each.revision, "source": each.source, "aliases": each.aliases}
        for each in await parts.store.models()
    ]
    return {
        "node.json": now.node.model_dump(mode="json"),
        "ledger.json": [each.model_dump(mode="json") for each in now.devices],
        "replicas.json": [each.model_dump(mode="json") for each in now.replicas],
        "queue.json": [each.model_dump(mode="json") for each in now.queue],
        "doctor.json": [each.model_dump(mode="json") for each in checks],
        "models.json": models,
        "storage.json": await _storage(parts),
        "journal.json": [event_view(each).model_dump(mode="json") for each in events],
        "audit.json": [entry_view(each).model_dump(mode="json") for each in audit],
    }


async def _storage(parts: Parts) -> Any:
    """A report that cannot be made is told, and costs the rest nothing."""
    try:
        usage = await parts.store.usage()
        tiers = [] if parts.tiers is None else await parts.tiers.status()
    except (HeliosError, OSError, sqlite3.Error) as error:
        return {"cannot_tell": str(error)}
    return {
        "logical_bytes": usage.logical_bytes,
        "physical_bytes": usage.physical_bytes,
        "models": [{"ref": each.ref, "frees_bytes": each.frees_bytes} for each in usage.models],
        "tiers": [
            {"tier": each.tier, "budget_bytes": each.budget_bytes, "used_bytes": each.used_bytes, "note": each.note}
            for each in tiers
        ],
    }


async def _metrics(request: web.Request, parts: Parts) -> str:
    """As they are scraped."""
    response = await metrics(request, parts)
    body = response.body if isinstance(response, web.Response) else b""
    return body.decode(errors="replace") if isinstance(body, bytes) else ""


def _log(parts: Parts) -> str:
    return "\n".join(parts.log.lines(_LINES))


def _pack(
    out: IO[bytes], told: dict[str, Any], texts: dict[str, str], secrets: frozenset[str], state_dir: Path
) -> None:
    made = Bundle(out, secrets)
    for name, value in told.items():
        made.value(name, value)
    for name, text in texts.items():
        made.text(name, text)
    add_machine(made, state_dir)
    made.close()


ROUTES = (
    Route(
        "GET",
        "/helios/v1/doctor/bundle",
        bundle,
        Scope.ADMIN,
        "All that helps to help: one archive, without secrets and without prompts.",
        Answer("a tar.gz", media=_MEDIA),
        detail="Configuration, versions, devices and ledger, replicas, the last of the journal and the audit, metrics, "
        "logs, the last of the recording, the database's schema and sizes, the store. At most 32 MiB before "
        "compression, 2 MiB of each file.",
    ),
)
