"""Who waits, who is taken and who has ended, with real processes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from heliosd.core.names import ReplicaId
from heliosd.engines.shell import Shell
from heliosd.engines.shells import ShellNews, Shells
from heliosd.engines.vllm import VllmKind
from heliosd.engines.zygote import ForkContext, Zygote
from heliosd.errors import EngineFailed
from tests.engines.answers import alive, spec, until
from tests.engines.test_zygote import HERE, show


@pytest_asyncio.fixture
async def zygote(tmp_path: Path) -> AsyncIterator[Zygote]:
    made = Zygote("decimal", {**os.environ, "PYTHONPATH": HERE}, tmp_path / "zygote.log")
    await asyncio.to_thread(made.ensure)
    yield made
    await asyncio.to_thread(made.close)


@pytest_asyncio.fixture
async def shells(zygote: Zygote) -> AsyncIterator[Shells]:
    with ThreadPoolExecutor(4) as threads:
        made = Shells(zygote, threads, None)
        yield made
        made.close()


def news_of(shells: Shells) -> list[ShellNews]:
    found: list[ShellNews] = []
    shells.tell = found.append
    return found


async def test_one_is_given_to_one_start_and_comes_back_when_it_was_not_used(shells: Shells) -> None:
    made = await shells.make()
    assert (shells.waiting, shells.own_bytes) == (1, made.own_bytes)
    assert made.own_bytes > 0
    assert shells.each_bytes == made.own_bytes
    taken = shells.take()
    assert taken is made
    assert shells.take() is None
    shells.done_with(taken, ReplicaId("r1"), "m")
    assert shells.take() is made
    shells.done_with(made, ReplicaId("r2"), "m")


async def test_who_began_in_it_is_told(shells: Shells, zygote: Zygote, tmp_path: Path) -> None:
    news = news_of(shells)
    await shells.make()
    shell = shells.take()
    assert shell is not None
    context = ForkContext(zygote, tmp_path / "log", {})
    context.shell = shell
    process = context.Process(target=show)
    await asyncio.to_thread(process.start)
    shells.done_with(shell, ReplicaId("r7"), "org/m")
    await asyncio.to_thread(process.join, 10)
    assert [(each.what, each.replica, each.model) for each in news] == [("used", "r7", "org/m")]
    assert shells.waiting == 0


async def test_a_death_is_noticed_and_the_dead_is_given_to_nobody(shells: Shells) -> None:
    news = news_of(shells)
    shell = await shells.make()
    os.kill(shell.pid, signal.SIGKILL)
    await until(lambda: bool(news), 5)
    assert [each.what for each in news] == ["died"]
    assert shells.take() is None


async def test_one_that_died_while_it_was_taken_does_not_come_back(shells: Shells) -> None:
    news = news_of(shells)
    await shells.make()
    shell = shells.take()
    assert shell is not None
    os.kill(shell.pid, signal.SIGKILL)
    await until(lambda: not shell.alive, 5)
    shells.done_with(shell, ReplicaId("r1"), "m")
    assert ([each.what for each in news], shells.waiting) == (["died"], 0)


async def test_what_is_given_up_is_gone(shells: Shells) -> None:
    shell = await shells.make()
    assert shells.give_up() == shell.own_bytes
    assert shells.give_up() is None
    await until(lambda: not alive(shell.pid), 5)


async def test_a_making_that_is_cancelled_leaves_no_process(shells: Shells, zygote: Zygote) -> None:
    made: list[Shell] = []
    dispose = shells._end

    def end(shell: Shell) -> None:
        made.append(shell)
        dispose(shell)

    shells._end = end  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.0):
            await shells.make()
    assert shells.waiting == 0
    await until(lambda: bool(made), 5)
    await until(lambda: not alive(made[0].pid), 5)


async def test_one_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        shells = Shells(Zygote("decimal", {}, tmp_path / "log"), threads, None)
        with pytest.raises(EngineFailed, match="the zygote is not running"):
            await shells.make()
        assert not shells.making


async def test_a_start_that_is_cancelled_at_the_first_moment_gives_back_what_it_took(tmp_path: Path) -> None:
    """While it makes its folder and takes up what was compiled, nobody has it yet who could give it back."""
    kind = VllmKind(tmp_path)
    done: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def launch(*args: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        done.append("taken")
        return SimpleNamespace(clear_away=lambda: done.append("given back"))

    kind._adapter = SimpleNamespace(Launch=launch)
    try:
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(kind._launched(spec(tmp_path, tmp_path)))
            await begun.wait()
            starting.cancel()
            await asyncio.wait([starting])
            go_on.set()
        await until(lambda: done == ["taken", "given back"], 5)
    finally:
        await kind.close()
