"""A GGUF file as a source: dequantized into safetensors by a child process, so that torch never enters the daemon."""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from heliosd.core.manifest import ManifestFile
from heliosd.core.secrets import without_secrets
from heliosd.errors import BadRequest, HeliosError, NotFound, SourceFailed, Unavailable
from heliosd.store.blobs import Blobs, Hold, Report
from heliosd.store.layout import Layout
from heliosd.store.sources.source import Listing, Progress, SourceFile, Tell
from heliosd.store.threads import Threads

_MAGIC = b"GGUF"
_PIECE = re.compile(r".*-\d{5}-of-\d{5}\.gguf")
_CONVERTER = "heliosd.store.sources.gguf_convert"


class GgufSource:
    """The conversion happens in `list`; its result waits in a folder of its own under `incoming/`."""

    def __init__(self, file: Path, layout: Layout, blobs: Blobs, threads: Threads) -> None:
        self._file = file
        self._blobs = blobs
        self._threads = threads
        self._folder = layout.incoming / f"gguf-{uuid.uuid4().hex}"

    @property
    def _result(self) -> Path:
        return self._folder / "model"

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    async def list(self, tell: Tell) -> Listing:
        """Convert the file and list the result. Raises BadRequest, NotFound, SourceFailed or Unavailable.

        Cancelling kills the child at once.
        """
        size_bytes = await self._threads.run(self._check)
        progress = Progress("convert", "starting", 0, size_bytes)
        tell(progress)
        await self._threads.run(self._result.mkdir, parents=True)
        async with self._child() as child:
            last = await _follow(child, progress, tell)
            await child.wait()
        if not last.get("finished"):
            raise self._failed(last, await self._threads.run(self._log.read_text, errors="replace"))
        files = await self._threads.run(self._list)
        return Listing(files, {"kind": "gguf", "location": str(self._file)}, adopted=True)

    def _check(self) -> int:
        if not self._file.is_absolute():
            raise BadRequest(f"cannot read {self._file}: give an absolute path on the daemon's machine")
        if _PIECE.fullmatch(self._file.name):
            raise BadRequest(f"cannot import {self._file.name}: it is one of several pieces; merge them into one file")
        try:
            with self._file.open("rb") as file:
                magic = file.read(len(_MAGIC))
        except FileNotFoundError as error:
            raise NotFound(f"cannot read {self._file}: there is no such file") from error
        except OSError as error:
            raise BadRequest(f"cannot read {self._file}: {error.strerror}") from error
        if magic != _MAGIC:
            raise BadRequest(f"cannot import {self._file}: it is no GGUF file")
        return self._file.stat().st_size

    @asynccontextmanager
    async def _child(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the converter; at the end of the block it is gone, with all it started."""
        # Nothing it needs is on the network, and nobody's token is its business.
        environment = without_secrets(os.environ)
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        log = await self._threads.run(self._log.open, "wb")
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", _CONVERTER, str(self._file), str(self._result)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=environment,
            )
        finally:
            log.close()
        try:
            yield child
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()

    def _failed(self, last: dict[str, Any], log: str) -> HeliosError:
        why = str(last.get("error") or "the converter ended without a word")
        if (code := last.get("code")) in ("disk_full", "memory_full"):
            return Unavailable(f"cannot convert {self._file.name}: {why}", code=code, retry_after_s=60.0)
        return SourceFailed(
            f"cannot convert {self._file.name}: {why}", code="conversion_failed", cause=log[-4000:] or why
        )

    def _list(self) -> tuple[SourceFile, ...]:
        return tuple(
            SourceFile(str(path.relative_to(self._result)), path.stat().st_size)
            for path in self._result.rglob("*")
            if path.is_file()
        )

    async def deliver(self, file: SourceFile, hold: Hold, report: Report) -> ManifestFile:
        """Take over one file of the result without copying it."""
        digest, size_bytes = await self._blobs.adopt(self._result / file.path, hold, report)
        return ManifestFile(file.path, digest, size_bytes)

    async def close(self) -> None:
        """Remove what is left of the conversion."""
        await self._threads.run(shutil.rmtree, self._folder, ignore_errors=True)


async def _follow(child: asyncio.subprocess.Process, progress: Progress, tell: Tell) -> dict[str, Any]:
    """Pass the child's progress on until it says its last word, and return that."""
    assert child.stdout is not None
    last: dict[str, Any] = {}
    async for line in child.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # a library talks
        if not isinstance(said, dict):
            continue
        last = said
        if "step" in last:
            done, total = last.get("done") or 0, last.get("total") or 0
            # The bars of reading, loading and writing follow one another; the first takes nearly all the time.
            done_bytes = (progress.total_bytes or 0) * done // total if total else 0
            progress = replace(progress, item=last["step"], done_bytes=max(progress.done_bytes, done_bytes))
            tell(progress)
    return last
