"""A whole heliosd on a real GPU: nearly all memory given out, models that take turns asleep, an account that is true.

Run by `make test-gpu`. What it prints (`pytest -s`) are the figures of this machine.
"""

import asyncio
from pathlib import Path

import pytest

from heliosd.core.hardware import Device
from heliosd.core.units import GiB, MiB
from tests.e2e.daemon import Daemon, heliosd

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

ASK = [{"role": "user", "content": "Count from one to one hundred."}]
STREAMS = 32
COMMITTED = 0.96
"""The promise is more than 95 % of a GPU; 2 % of it are promised to nobody (`devices.safety_ratio`)."""
SLACK_BYTES = 512 * MiB
LIMITS = "max_model_len = 2048\nmax_num_seqs = 32\n"


@pytest.fixture(scope="module")
def capacity_bytes(gpu: Device) -> int:
    return gpu.capacity_bytes


def models(names: list[str], kv_cache_bytes: int, more: str = "") -> str:
    return "".join(f'[models."{name}"]\nkv_cache = {kv_cache_bytes}\n{LIMITS}{more}' for name in names)


def besides_kv(daemon: Daemon, model: str) -> int:
    """Bytes that an engine takes besides its KV cache, as predicted."""
    held = daemon.get("estimate", model=model, kv_cache_bytes=GiB, max_model_len=2048, max_num_seqs=32)["per_device"]
    return int(held["total_bytes"] - held["kv_cache_bytes"])


async def crowd(daemon: Daemon, names: list[str]) -> int:
    """`STREAMS` requests to each at once; how many tokens were answered."""
    client = daemon.async_openai()

    async def one(name: str) -> int:
        answer = await client.chat.completions.create(model=name, messages=ASK, max_tokens=256)  # type: ignore[arg-type]
        assert answer.usage
        return answer.usage.completion_tokens

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(one(name)) for name in names for _ in range(STREAMS)]
    return sum(task.result() for task in asked)


def account(daemon: Daemon, what: str) -> dict[str, float]:
    row = daemon.device()
    shares = {
        name: row[f"{name}_bytes"] / row["capacity_bytes"]
        for name in ("promised", "measured", "used", "foreign", "drift")
    }
    print(what, {name: f"{share:.2%}" for name, share in shares.items()}, "of", row["capacity_bytes"])
    return shares


async def test_nearly_all_of_it_is_given_out_and_nothing_runs_out(smol_dir: Path, capacity_bytes: int):
    names = ["test/one", "test/two"]
    with heliosd(config="[engines]\npreload = false\n") as daemon:
        for name in names:
            daemon.bring(smol_dir, name)
        rest = besides_kv(daemon, names[0])
        daemon.stop()
        kv_cache = (int(COMMITTED * capacity_bytes) - 2 * rest) // 2
        daemon.configure(models(names, kv_cache))
        daemon.start()
        for name in names:
            daemon.load(name)
        for row in daemon.replicas():
            timeline = daemon.get(f"replicas/{row['id']}/timeline")
            spans = {span["phase"]: round(span["ended_s"] - span["began_s"], 2) for span in timeline["spans"]}
            print(row["id"], row["predicted"], row["measured"], timeline["total_s"], spans)
        shares = account(daemon, "two models")
        assert shares["promised"] > 0.95
        assert shares["used"] > 0.95
        assert shares["measured"] <= shares["promised"], "more is held than was booked"
        assert await crowd(daemon, names) > 2 * STREAMS
        after = account(daemon, f"after {2 * STREAMS} requests")
        assert after["used"] <= shares["promised"] + SLACK_BYTES / capacity_bytes
        assert not [event for event in daemon.events(limit=10_000) if event["kind"] in {"oom", "exited", "refuse"}]
        for name in names:
            daemon.unload(name)
        daemon.until(daemon.idle, 10, "something is still promised")
        daemon.until(lambda: daemon.device()["used_bytes"] < SLACK_BYTES, 10, "memory is not given back")


def test_models_that_do_not_fit_together_take_turns_asleep(smol_dir: Path, capacity_bytes: int):
    names = ["test/a", "test/b", "test/c"]
    # One fits at a time beside what the sleepers keep.
    eager = "engine_args = {enforce_eager = true}\n"
    config = models(names, int(0.7 * capacity_bytes), eager) + "[pool]\nhot_swap = false\n[queue]\npatience_s = 0.2\n"
    with heliosd(config=config) as daemon:
        for name in names:
            daemon.bring(smol_dir, name)
        client = daemon.openai()
        said: dict[str, str | None] = {}
        for turn in range(3):
            for name in names:
                answer = client.chat.completions.create(
                    model=name,
                    messages=ASK,  # type: ignore[arg-type]
                    max_tokens=16,
                    temperature=0,
                )
                assert said.setdefault(name, answer.choices[0].message.content) == answer.choices[0].message.content
            account(daemon, f"turn {turn}")
        asleep = [row for row in daemon.replicas() if row["state"] == "asleep"]
        assert len(asleep) == 2, "they wake, they are not started again"
        kinds = [event["kind"] for event in daemon.events(limit=10_000)]
        print({kind: kinds.count(kind) for kind in sorted(set(kinds))})
        assert kinds.count("start") == len(names)
        for name in names:
            daemon.unload(name)
        daemon.until(lambda: daemon.device()["used_bytes"] < SLACK_BYTES, 10, "memory is not given back")
