"""`vllm serve` with the same engine arguments, in the same surroundings, with the same kernel for attention.

Nothing of vLLM is changed for it: a folder on its path carries the metadata of a package. That answers to the name
`vllm`, under which the command line looks for its own version and which the CPU's package does not have; and it names
our choice of kernel as a vLLM plug-in, so that both work equally long on a token and give the same answers.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from heliosd.engines.surroundings import vllm_version
from tests.bench.arguments import Arguments
from tests.bench.process import Server, free_port, server


@asynccontextmanager
async def vllm_serve(arguments: Arguments, folder: Path) -> AsyncIterator[tuple[Server, str]]:
    """Run `vllm serve` while the block lasts: (its process, its URL). It does not answer yet."""
    package = folder / "package"
    _write_package(package)
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", *arguments.flags()]
    environment = {**arguments.environment(), "PYTHONPATH": str(package)}
    async with server(
        [*command, "--host=127.0.0.1", f"--port={port}"], environment, folder / "vllm-serve.log"
    ) as process:
        yield process, f"http://127.0.0.1:{port}"


def _write_package(folder: Path) -> None:
    version = f"{vllm_version()}+cpu"
    info = folder / f"vllm-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nattention_without_amx = heliosd.engines.preload:attention_without_amx\n"
    )
