"""A second start of a model that is compiled finds what the first compiled. Real vLLM with a tiny model."""

import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from heliosd.core.units import MiB
from heliosd.engines.vllm import VllmKind
from heliosd.engines.warmup_facts import warmup_facts
from heliosd.engines.warmup_manifest import key_of
from heliosd.engines.warmups import Warmups
from tests.engines.answers import chat, spec

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def warmups(tmp_path_factory: pytest.TempPathFactory) -> Warmups:
    made = Warmups(tmp_path_factory.mktemp("state") / "warmups", 1024 * MiB)
    made.open()
    return made


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def kind(warmups: Warmups, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmKind]:
    made = VllmKind(tmp_path_factory.mktemp("logs"), warmups=warmups)
    await made.warm()
    yield made
    await made.close()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
@pytest.mark.skipif(" " in sys.prefix, reason="Inductor does not quote the paths it gives to the compiler")
async def test_the_second_start_compiles_nothing(
    kind: VllmKind, warmups: Warmups, tiny_dir: Path, tmp_path: Path
) -> None:
    options = {"enforce_eager": False, "seed": 7}
    launch = replace(
        spec(tiny_dir, tmp_path, "one", kv_cache_bytes=16 * MiB, max_model_len=256, engine_args=options),
        revision="tiny",
    )
    facts = warmup_facts(launch, kind.version)
    assert facts is not None
    key = key_of(facts)
    first = await kind.start(launch)
    said = (await chat(first, max_tokens=4)).json["choices"][0]["message"]["content"]
    await first.stop()
    kept = warmups.check(key)
    compiled = {path for path in kept.files if path.endswith((".so", ".cpp"))}
    assert compiled, "it was compiled, and what it gave is kept"

    second = await kind.start(replace(launch, clock=type(launch.clock)()))
    live = warmups.folder / "live" / key
    there = {path.relative_to(live).as_posix() for path in live.rglob("*") if path.suffix in (".so", ".cpp")}
    again = (await chat(second, max_tokens=4)).json["choices"][0]["message"]["content"]
    await second.stop()
    assert there == compiled, "nothing was compiled anew"
    assert {"restore", "first_run"} <= second.phases.keys()
    assert again == said
