"""What Helios says of the KV cache against what the installed vLLM makes of the same configuration: just the same."""

import collections
import json
from pathlib import Path

import pytest

from heliosd.estimation.fields import Fields
from heliosd.estimation.kv_kinds import Keeps
from heliosd.estimation.kv_pages import kv_pages, layer_pages
from heliosd.estimation.kv_specs import CacheLaunch, kv_specs
from tests.estimation.kv_cases import CASES
from tests.estimation.kv_truth import LENGTH, ROOM, truth
from tests.estimation.offline import no_hub

pytestmark = pytest.mark.slow

NAMES = {
    Keeps.FULL: "FullAttentionSpec",
    Keeps.SLIDING: "SlidingWindowSpec",
    Keeps.CHUNKED: "ChunkedLocalAttentionSpec",
    Keeps.STATE: "MambaSpec",
}


@pytest.mark.parametrize("name", CASES)
def test_pages_blocks_and_tokens_are_vllms_own(name: str, tmp_path: Path) -> None:
    import transformers

    chosen = CASES[name]
    config_class = getattr(transformers, chosen.config_class, None)
    if config_class is None:
        pytest.skip(f"this transformers has no {chosen.config_class}")
    made = config_class(**chosen.sizes)
    made.architectures = [chosen.architecture]
    made.dtype = "bfloat16"
    made.save_pretrained(tmp_path)
    with no_hub():
        expected = truth(tmp_path, chosen.launch)

    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    launch = CacheLaunch(
        version=(0, 32),
        platform="cpu",
        tensor_parallel=chosen.launch.get("tp", 1),
        pipeline_parallel=chosen.launch.get("pp", 1),
        decode_context_parallel=chosen.launch.get("dcp", 1),
        block_size=chosen.launch.get("block_size"),
        hybrid=not chosen.launch.get("disable_hybrid_kv_cache_manager", False),
        dtype=chosen.launch.get("dtype", "bfloat16"),
        enable_prefix_caching=expected.prefixes,
        mamba_ssm_cache_dtype=expected.state_dtype,
        max_model_len=LENGTH,
        max_num_batched_tokens=expected.batched_tokens,
        batches_in_flight=expected.batches,
    )
    specs = kv_specs(Fields(config), launch)
    pages = kv_pages(specs, launch)
    assert pages.block_tokens == expected.block_tokens
    asked: collections.Counter[tuple[str, int, int]] = collections.Counter()
    for page in layer_pages(specs, pages.block_tokens, launch):
        name = "MLAAttentionSpec" if page.spec.latent else NAMES[page.spec.keeps]
        asked[name, page.block_tokens, page.page_bytes] += len(page.spec.layers)
    assert asked == expected.pages
    assert len(pages.groups) == expected.groups
    assert pages.blocks(ROOM) == expected.blocks
    assert pages.max_concurrency(LENGTH, ROOM) == expected.concurrency
    assert pages.tokens_in(ROOM) == expected.tokens
