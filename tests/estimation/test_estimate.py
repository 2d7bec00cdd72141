"""Bytes are predicted from facts; what is assumed is said, and wishes that contradict each other are refused."""

from typing import Any

import pytest

from heliosd.core.hardware import DeviceKind
from heliosd.core.profile import ModelProfile
from heliosd.core.units import GiB, MiB
from heliosd.errors import BadRequest
from heliosd.estimation.calibration import Calibration
from heliosd.estimation.estimate import History, Place, Wishes, estimate
from heliosd.estimation.known import Known, known_from
from heliosd.estimation.loads import Asked, Load

SMOLLM2: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 30, "num_key_value_heads": 3,
    "num_attention_heads": 9, "hidden_size": 576, "intermediate_size": 1536, "vocab_size": 49152,
    "max_position_embeddings": 8192, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32, "num_key_value_heads": 8,
    "num_attention_heads": 32, "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128_256,
    "max_position_embeddings": 131_072, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
PROFILE = ModelProfile("LlamaForCausalLM", 16 * GiB, None, "bfloat16", *(None,) * 5, 131_072)
HOST = Place(DeviceKind.HOST, 16 * GiB)
H100 = Place(DeviceKind.CUDA, 79 * GiB, "NVIDIA H100 80GB HBM3")


def known(config: dict[str, Any]) -> Known:
    return known_from(config, [])


def test_the_weights_are_what_the_engine_prints() -> None:
    """vLLM prints 14.99 GiB for Llama 3.1 8B, of which 32 MiB are the table of rotary angles."""
    predicted = estimate(known(LLAMA_8B), PROFILE, Wishes(), H100)
    assert predicted.per_device.weights_bytes / GiB == pytest.approx(14.9888, abs=1e-4)


def test_kv_cache_is_what_the_engine_logs() -> None:
    """256 MiB hold 91 blocks of 128 tokens on the CPU."""
    predicted = estimate(known(SMOLLM2), PROFILE, Wishes(kv_cache_bytes=256 * MiB), HOST)
    assert predicted.kv_bytes_per_token == 23040
    assert predicted.kv_tokens == 91 * 128


def test_left_alone_it_leaves_room_for_others() -> None:
    predicted = estimate(known(LLAMA_8B), PROFILE, Wishes(), H100)
    assert predicted.per_device.kv_cache_bytes == 79 * GiB // 4
    assert predicted.kv_tokens >= predicted.max_model_len == 131_072


def test_a_request_longer_than_a_share_of_the_device_is_cut_and_said() -> None:
    predicted = estimate(known(LLAMA_8B), PROFILE, Wishes(), Place(DeviceKind.CUDA, 40 * GiB, "A100 40GB"))
    assert predicted.max_model_len < 131_072
    assert predicted.kv_tokens >= predicted.max_model_len
    assert any("limited" in note for note in predicted.notes)


def test_explicit_kv_cache_is_taken_verbatim() -> None:
    predicted = estimate(known(SMOLLM2), PROFILE, Wishes(kv_cache_bytes=64 * MiB), HOST)
    assert predicted.per_device.kv_cache_bytes == 64 * MiB
    assert predicted.max_model_len <= predicted.kv_tokens < 8192


def test_wishes_that_contradict_each_other_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(BadRequest, match=r"8192 tokens x 23040 bytes need 18\d\.\d MiB"):
        estimate(known(SMOLLM2), PROFILE, Wishes(kv_cache_bytes=64 * MiB, max_model_len=8192), HOST)


def test_heads_that_ranks_cannot_share_are_refused() -> None:
    with pytest.raises(BadRequest, match="cannot divide 9 attention heads over 2 devices"):
        estimate(known(SMOLLM2), PROFILE, Wishes(tensor_parallel=2), H100)


def test_what_was_measured_replaces_what_was_predicted() -> None:
    predicted = estimate(known(SMOLLM2), PROFILE, Wishes(), HOST)
    assert predicted.basis is not None
    asked = Asked("vllm 0.32.0", "LlamaForCausalLM", "host", "", 1, "{}", "r1")
    took = {"weights": 270 * MiB, "kv_cache": predicted.per_device.kv_cache_bytes, "overhead": 700 * MiB}
    history = History(Calibration([Load(asked, predicted.basis.law, took)]), "vllm 0.32.0", "{}", "r1")
    measured = estimate(known(SMOLLM2), PROFILE, Wishes(), HOST, history)
    assert any("not measured here yet" in note for note in predicted.notes)
    assert measured.basis is not None
    assert measured.basis.likely.overhead_bytes == 700 * MiB
    assert 700 * MiB < measured.per_device.overhead_bytes < 850 * MiB, "a margin is booked on top"
    assert not measured.notes


def test_another_precision_scales_the_weights() -> None:
    plain = estimate(known(SMOLLM2), PROFILE, Wishes(), HOST)
    wide = estimate(known(SMOLLM2), PROFILE, Wishes(dtype="float32"), HOST)
    assert wide.per_device.weights_bytes == 2 * plain.per_device.weights_bytes
    assert wide.kv_bytes_per_token == 2 * 23040


def test_fewer_sequences_save_gigabytes_on_a_gpu() -> None:
    many = estimate(known(LLAMA_8B), PROFILE, Wishes(max_num_seqs=1024), H100)
    few = estimate(known(LLAMA_8B), PROFILE, Wishes(max_num_seqs=16), H100)
    assert many.accounts[0].graphs.likely_bytes > few.accounts[0].graphs.likely_bytes


def test_an_encoder_keeps_nothing() -> None:
    bert = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 30522, "max_position_embeddings": 512,
    }  # fmt: skip
    predicted = estimate(known(bert), PROFILE, Wishes(), HOST)
    assert predicted.per_device.kv_cache_bytes == 0
    assert predicted.kv_bytes_per_token == 0


def test_what_is_not_known_is_said() -> None:
    unknown = ModelProfile("Strange", 10 * GiB, *(None,) * 8)
    predicted = estimate(Known(fault="it is empty"), unknown, Wishes(), H100)
    assert predicted.per_device.total_bytes > 10 * GiB
    assert len(predicted.notes) >= 3


def test_ranks_share_the_weights() -> None:
    whole = estimate(known(LLAMA_8B), PROFILE, Wishes(), H100)
    predicted = estimate(known(LLAMA_8B), PROFILE, Wishes(tensor_parallel=4), H100)
    assert predicted.device_count == 4
    assert predicted.per_device.weights_bytes == pytest.approx(whole.per_device.weights_bytes / 4, rel=0.02)


def test_stages_share_the_layers_and_the_neediest_is_booked() -> None:
    whole = estimate(known(LLAMA_8B), PROFILE, Wishes(kv_cache_bytes=20 * GiB), H100)
    cut = estimate(known(LLAMA_8B), PROFILE, Wishes(kv_cache_bytes=20 * GiB, pipeline_parallel=4), H100)
    assert (cut.device_count, cut.pipeline_parallel, len(cut.accounts)) == (4, 4, 4)
    assert cut.per_device.weights_bytes == max(each.weights.likely_bytes for each in cut.accounts)
    together = sum(each.weights.likely_bytes for each in cut.accounts)
    assert whole.per_device.weights_bytes <= together < 1.05 * whole.per_device.weights_bytes
    assert {each.kv_cache.likely_bytes for each in cut.accounts} == {20 * GiB}
    assert cut.kv_tokens == pytest.approx(4 * whole.kv_tokens, rel=0.01), "each stage keeps a quarter of the layers"
    with pytest.raises(BadRequest, match="cannot give each of 33 pipeline stages one of 32 layers"):
        estimate(known(LLAMA_8B), PROFILE, Wishes(pipeline_parallel=33), H100)


def test_a_share_too_small_for_one_block_is_not_taken() -> None:
    predicted = estimate(known(LLAMA_8B), PROFILE, Wishes(), Place(DeviceKind.HOST, 32 * MiB))
    assert predicted.kv_tokens >= predicted.max_model_len > 0
