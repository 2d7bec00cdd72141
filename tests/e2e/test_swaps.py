"""Two models that do not fit together: every request is answered, and nothing is lost on the way."""

import asyncio
import random
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import OTHER, TINY
from tests.e2e.daemon import heliosd

pytestmark = pytest.mark.slow

SWAPS = 50
ASK = [{"role": "user", "content": "Count."}]
# Each takes some 300 MiB the first time and is measured then; two of them never fit.
CONFIG = """
[devices]
host_memory = "700MiB"
[engines]
kv_cache = "128MiB"
[pool]
shells = 0  # their coming and going is not what is counted here
[queue]
patience_s = 0.2
"""
GROWTH_MIB_PER_SWAP = 1.0


def test_fifty_swaps_leave_no_trace(stock: Path):
    with heliosd(config=CONFIG, stock=stock) as daemon:
        client, process = daemon.openai(), psutil.Process(daemon.pid)

        def ask(model: str) -> float:
            began = time.monotonic()
            answer = client.chat.completions.create(model=model, messages=ASK, max_tokens=3)
            assert answer.choices[0].message.content
            return time.monotonic() - began

        for model in (TINY, OTHER):  # everything is imported, and both are measured
            ask(model)
        daemon.unload(OTHER)
        before = {"device": daemon.device(), "processes": len(daemon.processes()), "fds": process.num_fds()}
        seconds = [ask((TINY, OTHER)[number % 2]) for number in range(SWAPS // 2)]
        rss_before = process.memory_info().rss  # until here the heap takes its size
        seconds = sorted(seconds + [ask((TINY, OTHER)[number % 2]) for number in range(SWAPS // 2, SWAPS)])
        (last,) = daemon.replicas()
        daemon.unload(last["model"])
        daemon.until(daemon.idle, 5, "something is still promised")
        rss_grown = (process.memory_info().rss - rss_before) / 2**20

        after = daemon.device()
        assert (after["promised_bytes"], after["measured_bytes"]) == (0, 0)
        assert after["free_bytes"] == before["device"]["free_bytes"]
        assert len(daemon.processes()) == before["processes"]
        assert process.num_fds() <= before["fds"] + 2
        assert process.num_threads() < 200
        starts = [event for event in daemon.events(limit=10_000) if event["kind"] == "start"]
        assert len(starts) == SWAPS + 2
        print(
            f"{SWAPS} swaps: median {seconds[SWAPS // 2]:.2f} s, slowest {seconds[-1]:.2f} s; "
            f"in the second half the daemon grew by {rss_grown:.1f} MiB, to {process.memory_info().rss / 2**20:.0f} MiB"
        )
        assert rss_grown < GROWTH_MIB_PER_SWAP * SWAPS / 2, "an engine leaves 20 to 60 MiB when it is not collected"


async def test_a_mixed_load_is_answered_without_an_error(stock: Path):
    """Ten clients, two models, room for one: whole and streamed, and some that leave in the middle."""
    with heliosd(config=CONFIG, stock=stock) as daemon:
        client = daemon.async_openai()
        answered = {TINY: 0, OTHER: 0}

        async def visit(seed: int) -> None:
            dice = random.Random(seed)
            while min(answered.values()) < 10 or sum(answered.values()) < 60:
                model = dice.choice((TINY, OTHER))
                asked = {"model": model, "messages": ASK, "max_tokens": dice.randrange(1, 40)}
                if dice.random() < 0.5:
                    assert (await client.chat.completions.create(**asked)).choices
                    answered[model] += 1
                    continue
                stream = await client.chat.completions.create(**asked, stream=True)
                leaves = dice.random() < 0.3
                async for _ in stream:
                    if leaves:
                        break
                await stream.close()
                answered[model] += 1

        async with asyncio.TaskGroup() as visitors:
            for seed in range(10):
                visitors.create_task(visit(seed))
        assert min(answered.values()) >= 10
        assert daemon.metric("helios_leases") == 0
        events = daemon.events(limit=100_000)
        assert not [event for event in events if event["kind"] == "refuse"]
        assert not [event for event in events if event["kind"] == "exited" and "died" in event["message"]]
