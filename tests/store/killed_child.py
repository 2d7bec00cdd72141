"""A process of the store that says a line for each step it has taken, and is killed a little after one of them."""

import asyncio
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


async def killed(module: str, *words: str, steps: int, after_s: float) -> None:
    """Run `python -m module`, let it take so many steps, then kill it a little later."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words, stdout=asyncio.subprocess.PIPE, cwd=PROJECT
    )
    assert process.stdout is not None
    try:
        for _ in range(steps + 1):
            assert await process.stdout.readline(), "the child ended by itself"
        asyncio.get_running_loop().call_later(after_s, process.kill)
        while await process.stdout.readline():
            pass
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
