"""Laws of the account of training, without a framework."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.errors import BadRequest
from heliosd.estimation.families.registry import layout_of
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout
from heliosd.estimation.training import TrainingAccount, TrainingPlan, share_bytes, training_account
from heliosd.estimation.training_parameters import nf4_bytes
from heliosd.estimation.training_plan import Attention, Method, Offload, Optimizer, Precision, Sharding
from heliosd.estimation.training_tape import Storage, Tape, Value

LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}
GPT2 = {"model_type": "gpt2", "n_embd": 128, "n_layer": 3, "n_head": 8, "n_positions": 512, "vocab_size": 1000}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}

configs = st.sampled_from(
    [LLAMA, {**LLAMA, "tie_word_embeddings": True}, {**LLAMA, "model_type": "qwen3"}, GPT2, MIXTRAL]
)


@st.composite
def plans(draw: st.DrawFn) -> TrainingPlan:
    method = draw(st.sampled_from(Method))
    precisions = [each for each in Precision if method is not Method.QLORA or each is not Precision.FP32]
    optimizer = draw(st.sampled_from(Optimizer))
    sharding = draw(st.sampled_from(Sharding))
    offloads = [each for each in Offload if each is not Offload.ALL or sharding.stage == 3]
    return TrainingPlan(
        method=method,
        optimizer=optimizer,
        precision=draw(st.sampled_from(precisions)),
        batch_size=draw(st.integers(1, 16)),
        sequence_length=draw(st.integers(1, 4096)),
        gradient_checkpointing=draw(st.booleans()),
        gradient_accumulation=draw(st.integers(1, 3)),
        attention=draw(st.sampled_from(Attention)),
        rank=draw(st.integers(1, 64)),
        momentum=optimizer is Optimizer.SGD and draw(st.booleans()),
        fused=draw(st.booleans()),
        sharding=sharding,
        data_parallel=draw(st.integers(1, 16)),
        tensor_parallel=draw(st.sampled_from([1, 2, 4])),
        offload=draw(st.sampled_from(offloads)),
        bucket_elements=draw(st.sampled_from([1000, 500_000_000])),
        on_gpu=draw(st.booleans()),
    )


def account(config: dict[str, object], plan: TrainingPlan) -> TrainingAccount:
    layout = layout_of(config)
    assert layout is not None
    return training_account(layout, Fields(config), plan)


@settings(deadline=None)
@given(configs, plans(), st.integers(1, 5))
def test_a_larger_batch_length_or_rank_never_takes_less(config, plan, more):
    before = account(config, plan)
    # 8-bit Adam quantizes tensors from 4,096 numbers on: there a higher rank does take less.
    names = ("batch_size", "sequence_length", "rank")[: 2 if plan.optimizer is Optimizer.ADAM8BIT else 3]
    for name in names:
        after = account(config, replace(plan, **{name: getattr(plan, name) + more}))
        assert after.total_bytes >= before.total_bytes, name
        assert after.host_bytes >= before.host_bytes, name


@settings(deadline=None)
@given(configs, plans(), st.integers(1, 5))
def test_more_layers_never_take_less(config, plan, more):
    name = "n_layer" if "n_layer" in config else "num_hidden_layers"
    deeper = {**config, name: config[name] + more}
    assert account(deeper, plan).total_bytes >= account(config, plan).total_bytes


@settings(deadline=None)
@given(configs, plans())
def test_a_later_stage_never_takes_more_on_a_device(config, plan):
    plan = replace(plan, offload=Offload.NONE)
    stages = (Sharding.NONE, Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3)
    totals = [account(config, replace(plan, sharding=stage)).total_bytes for stage in stages]
    assert totals == sorted(totals, reverse=True)


@settings(deadline=None)
@given(configs, plans())
def test_offload_never_takes_more_on_a_device_and_moves_bytes_to_the_host(config, plan):
    stays = account(config, replace(plan, offload=Offload.NONE))
    moves = account(config, replace(plan, offload=Offload.OPTIMIZER))
    assert moves.total_bytes <= stays.total_bytes
    assert stays.host_bytes == 0 < moves.host_bytes


@settings(deadline=None)
@given(configs, plans())
def test_checkpointing_never_saves_more(config, plan):
    kept = account(config, replace(plan, gradient_checkpointing=False))
    again = account(config, replace(plan, gradient_checkpointing=True))
    assert again.saved_bytes <= kept.saved_bytes


@settings(deadline=None)
@given(configs, plans())
def test_every_moment_is_the_sum_of_terms_none_larger_than_its_full_size(config, plan):
    found = account(config, plan)
    assert found.total_bytes == max(moment.total_bytes for moment in found.moments)
    assert found.low_bytes <= found.total_bytes <= found.high_bytes
    for moment in found.moments:
        for name, n_bytes in moment.held:
            assert 0 < n_bytes <= found.term_bytes(name), (moment.name, name)
    assert all(term.why for term in (*found.terms, *found.host_terms))


@settings(deadline=None)
@given(st.integers(0, 10**12), st.integers(1, 100))
def test_shares_add_up_to_the_whole_and_the_first_is_the_largest(whole, ranks):
    shares = [share_bytes(whole, ranks, rank) for rank in range(ranks)]
    assert sum(shares) == whole
    assert max(shares) == shares[0]


@settings(deadline=None)
@given(configs, st.integers(2, 16))
def test_what_zero3_divides_adds_up_over_its_ranks(config, ranks):
    plan = TrainingPlan(precision=Precision.MASTER, data_parallel=ranks)
    whole = account(config, plan)
    divided = account(config, replace(plan, sharding=Sharding.ZERO3))
    for name in ("weights", "master weights", "optimizer states"):
        n_bytes = whole.term_bytes(name)
        assert divided.term_bytes(name) == share_bytes(n_bytes, ranks)
        assert sum(share_bytes(n_bytes, ranks, rank) for rank in range(ranks)) == n_bytes


def test_mixed_precision_with_masters_takes_sixteen_bytes_a_parameter():
    found = account(LLAMA, TrainingPlan(precision=Precision.MASTER))
    names = ("weights", "gradients", "master weights", "optimizer states")
    standing = sum(found.term_bytes(name) for name in names)
    assert standing == pytest.approx(16 * found.trained_parameters, rel=0.001)


def test_lora_trains_rank_times_both_sides_of_its_targets():
    plan = TrainingPlan(method=Method.LORA, rank=4, targets=("q_proj", "v_proj"))
    found = account(LLAMA, plan)
    assert found.trained_parameters == 3 * 4 * ((128 + 128) + (128 + 32))


def test_nf4_takes_half_a_byte_and_its_scales():
    assert nf4_bytes(4096 * 4096, double=False) == 4096 * 4096 // 2 + 4096 * 4096 // 64 * 4
    assert nf4_bytes(4096 * 4096, double=True) == 4096 * 4096 // 2 + 262_144 + 262_144 // 256 * 4


@pytest.mark.parametrize("size", [64, 4096])
def test_eight_bit_moments_are_for_large_tensors_other_than_embeddings(size):
    config = {**LLAMA, "hidden_size": size, "head_dim": 16}
    small = account(config, TrainingPlan(optimizer=Optimizer.ADAM8BIT)).term_bytes("optimizer states")
    large = account(config, TrainingPlan(optimizer=Optimizer.ADAMW)).term_bytes("optimizer states")
    assert small < large


def test_eager_attention_grows_with_the_square_of_the_length():
    def saved(length: int, attention: Attention) -> int:
        plan = TrainingPlan(precision=Precision.FP32, sequence_length=length, attention=attention)
        return account(LLAMA, plan).saved_bytes

    growth = saved(4096, Attention.EAGER) - saved(4096, Attention.SDPA)
    assert growth == pytest.approx(4 * (saved(2048, Attention.EAGER) - saved(2048, Attention.SDPA)), rel=0.02)


def test_a_family_that_was_not_compared_has_a_wider_interval():
    known = account(LLAMA, TrainingPlan(on_gpu=False))
    other = account({**LLAMA, "model_type": "falcon", "new_decoder_architecture": False}, TrainingPlan(on_gpu=False))
    assert not known.assumed
    assert other.assumed
    assert (other.high_bytes - other.low_bytes) / other.total_bytes > (
        known.high_bytes - known.low_bytes
    ) / known.total_bytes


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": -1},
        {"sequence_length": 10**12},
        {"rank": 0, "method": Method.LORA},
        {"rank": True},
        {"data_parallel": 0},
        {"gradient_accumulation": 2.5},
        {"momentum": True, "optimizer": Optimizer.ADAMW},
        {"targets": ("q_proj",)},
        {"method": Method.QLORA, "precision": Precision.FP32},
        {"offload": Offload.ALL, "sharding": Sharding.ZERO2},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(BadRequest, match=r"^cannot "):
        TrainingPlan(**wrong)


@pytest.mark.parametrize(
    "plan",
    [TrainingPlan(tensor_parallel=3), TrainingPlan(method=Method.LORA, targets=("nothing",))],
)
def test_a_plan_that_does_not_go_with_the_model_is_refused(plan):
    with pytest.raises(BadRequest, match=r"^cannot "):
        account(LLAMA, plan)


def test_a_model_without_layers_is_refused():
    with pytest.raises(BadRequest, match=r"^cannot "):
        training_account(Layout((), (), ()), Fields(LLAMA), TrainingPlan())


def test_a_product_saves_only_what_a_gradient_needs():
    tape = Tape()
    frozen = Value(10, 4, False, Storage(40))
    learning = Value(20, 4, True, Storage(80))
    tape.value(30, 4, (frozen, learning), [frozen])
    assert {each.n_bytes for each in tape.saved()} == {40}
    tape.value(30, 4, (frozen, frozen), [frozen, frozen])
    assert len(tape.saved()) == 1


def test_gradients_of_a_value_with_two_uses_are_summed_in_place():
    tape = Tape()
    x = Value(100, 1, True, Storage(100))
    y = tape.value(100, 1, (x,))
    z = tape.value(100, 1, (x,))
    out = tape.value(100, 1, (y, z), passes=True)
    # The gradient shared by y and z, x's from one of them, x's from the other: never four.
    assert tape.backward(out).peak_bytes == 300
