"""Memory of training and fine-tuning, for one device and its host: every term with its formula, and the peak.

    account = training_account(layout, Fields(config), TrainingPlan(method=Method.LORA, batch_size=4))
    account.total_bytes, account.peak.name, [(term.name, term.n_bytes, term.why) for term in account.terms]

A step goes through moments: the forward pass ends; the loss goes back; each layer goes back, its activations leaving
and its gradients coming; the optimizer updates. Terms have their full size in `terms`; the total is the largest
moment, where not all of them are at their largest. The loss is held, the model's other outputs are not, and gradients
are dropped between steps, as training loops do.

Proven here on the CPU against PyTorch (tests/estimation/test_training_against_torch.py, tests/bench/training.py):
weights, gradients, states of AdamW, SGD and Adafactor, saved activations and peaks of Llama-, Qwen- and GPT-2-like
models, full and LoRA, float32, bfloat16 and autocast, with and without checkpointing, eager and fused attention.
Not run here, following published definitions: flash attention and other kernels of GPUs, NF4 and 8-bit optimizers,
ZeRO and FSDP with their buffers, offload, tensor parallelism, mixtures of experts; the interval is wider for them.
Not part of it: the device's context, the framework's own memory, fragmentation beyond the interval.
"""

from dataclasses import dataclass

from heliosd.errors import BadRequest
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout
from heliosd.estimation.training_activations import Run, run_of
from heliosd.estimation.training_moments import Fixed, Moment, moments
from heliosd.estimation.training_operators import Widths, widths
from heliosd.estimation.training_optimizers import state_bytes, state_formula, step_bytes
from heliosd.estimation.training_parameters import Parameters, parameters
from heliosd.estimation.training_plan import Attention, Method, Offload, Optimizer, Precision, Sharding, TrainingPlan

__all__ = ["Moment", "Term", "TrainingAccount", "TrainingPlan", "share_bytes", "training_account"]

PROVEN_PERCENT = 5
"""Half the interval where everything was proven against real runs."""
WIDER_PERCENT = 5
"""More for each thing that was not."""
COMPARED = frozenset((
    "cohere", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral", "mixtral", "olmo2", "opt",
    "phi", "phi3", "qwen2", "qwen3", "qwen3_moe", "stablelm", "starcoder2",
))  # fmt: skip
"""Families of which a model was trained beside its account, which was within 5 % of the peak (falcon was not)."""


@dataclass(frozen=True, slots=True)
class Term:
    name: str
    n_bytes: int
    why: str
    """The formula with its numbers."""


@dataclass(frozen=True, slots=True)
class TrainingAccount:
    terms: tuple[Term, ...]
    """Of one device, the fullest; each at its full size."""
    host_terms: tuple[Term, ...]
    """Of the host, for this rank."""
    moments: tuple[Moment, ...]
    """In the order of a step; of the layers the fullest one."""
    low_bytes: int
    high_bytes: int
    saved_bytes: int
    """Kept from the forward to the backward pass: activations, casts of weights, the loss's part."""
    trained_parameters: int
    """On one rank of tensor parallelism."""
    assumed: tuple[str, ...]
    """What widens the interval."""

    @property
    def peak(self) -> Moment:
        return max(self.moments, key=lambda moment: moment.total_bytes)

    @property
    def total_bytes(self) -> int:
        return self.peak.total_bytes

    @property
    def host_bytes(self) -> int:
        return sum(term.n_bytes for term in self.host_terms)

    def term_bytes(self, name: str) -> int:
        """Full size of a term; 0 when there is none of that name."""
        return sum(term.n_bytes for term in self.terms if term.name == name)


def share_bytes(whole_bytes: int, ranks: int, rank: int = 0) -> int:
    """What `rank` of `ranks` holds of something divided evenly; the first ranks take the rest, all add up."""
    return whole_bytes // ranks + (1 if rank < whole_bytes % ranks else 0)


def training_account(layout: Layout, fields: Fields, plan: TrainingPlan) -> TrainingAccount:
    """Bytes of training `layout` by `plan`; `fields` is the whole configuration.

    Raises BadRequest when the two cannot go together: no layers, nothing that learns, heads that do not divide.
    """
    width = widths(plan, full=plan.method is Method.FULL)
    found = parameters(layout, plan, width)
    if not found.trained_elements:
        raise BadRequest(
            f"cannot plan the training: none of {', '.join(plan.targets) or 'the projections'} is in the model",
            code="bad_training_plan",
            param="targets",
        )
    run = run_of(layout, fields, plan)
    terms = _whole_terms(found, plan, width)
    device, host = _placed(terms, found, plan, width)
    gradients = found.trained_elements * width.trained
    master = plan.precision is Precision.MASTER
    steps = moments(
        run,
        plan,
        Fixed(
            held=tuple((term.name, term.n_bytes) for term in device),
            gradient_bytes=gradients,
            parts=plan.data_parallel if plan.sharding.stage >= 2 else 1,
            on_host=plan.offload is not Offload.NONE and plan.sharding.stage >= 2,
            resident=plan.gradient_accumulation > 1,
            step_bytes=0
            if plan.offload is not Offload.NONE
            else step_bytes(found.trained, plan, 4 if master else width.trained),
        ),
    )
    assumed = _assumed(layout, fields, plan, run)
    total = max(moment.total_bytes for moment in steps)
    spread = PROVEN_PERCENT + WIDER_PERCENT * len(assumed)
    return TrainingAccount(
        terms=(*device, *_passing_terms(steps, run, plan, found, width)),
        host_terms=host,
        moments=steps,
        low_bytes=total * max(50, 100 - spread) // 100,
        high_bytes=-(-total * (100 + spread) // 100),
        saved_bytes=run.saved_bytes(checkpointing=plan.gradient_checkpointing),
        trained_parameters=found.trained_elements,
        assumed=assumed,
    )


def _whole_terms(found: Parameters, plan: TrainingPlan, width: Widths) -> tuple[Term, ...]:
    """Weights, masters and states of one rank of tensor parallelism, undivided."""
    count = found.trained_elements
    updated = 4 if plan.precision is Precision.MASTER else width.trained
    weights = f"{found.base_elements:,} parameters x {width.trained if plan.method is Method.FULL else width.frozen} B"
    if plan.method is Method.QLORA:
        weights = f"{found.base_elements:,} parameters: projections in NF4, others {width.frozen} B each"
    if plan.method is not Method.FULL:
        weights += f", adapters of rank {plan.rank}: {count:,} x {width.trained} B"
    states = state_bytes(found.trained, plan, updated)
    masters = 4 * count if plan.precision is Precision.MASTER else 0
    return (
        Term("weights", found.base_bytes + found.adapter_bytes, weights),
        Term("master weights", masters, f"{count:,} x 4 B"),
        Term("optimizer states", states, f"{plan.optimizer}, {count:,} parameters: {state_formula(plan, updated)}"),
    )


def _placed(
    terms: tuple[Term, ...], found: Parameters, plan: TrainingPlan, width: Widths
) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """Each term's share on the device, with the buffers of sharding, and what the host holds of it instead."""
    weights, masters, states = terms
    ranks, stage = plan.data_parallel, plan.sharding.stage
    on_host = plan.offload is not Offload.NONE
    device: list[Term] = []
    host: list[Term] = []
    own = _divided(weights, ranks if stage >= 3 else 1)
    (host if plan.offload is Offload.ALL else device).append(own)
    for term in (masters, states):
        (host if on_host else device).append(_divided(term, ranks if stage >= 1 else 1))
    gradients = found.trained_elements * width.trained
    if on_host:
        if not masters.n_bytes:
            copy = Term("weights to update", found.trained_elements * width.trained, "the host's copy of what learns")
            if plan.offload is not Offload.ALL:
                host.append(_divided(copy, ranks if stage >= 1 else 1))
        coming = Term("gradients", gradients, f"{found.trained_elements:,} x {width.trained} B for the host's update")
        host.append(_divided(coming, ranks if stage >= 1 else 1))
    device.append(_buckets(found, plan, gradients, width))
    device.append(_gathered(weights, found, plan))
    return tuple(each for each in device if each.n_bytes), tuple(each for each in host if each.n_bytes)


def _divided(term: Term, ranks: int) -> Term:
    if ranks == 1:
        return term
    return Term(term.name, share_bytes(term.n_bytes, ranks), f"({term.why}) / {ranks} ranks")


def _buckets(found: Parameters, plan: TrainingPlan, gradients: int, width: Widths) -> Term:
    """What gradients are copied into to be summed over the ranks."""
    name = "reduce buckets"
    if plan.data_parallel == 1:
        return Term(name, 0, "one rank")
    match plan.sharding:
        case Sharding.NONE:
            return Term(name, gradients, "a flat copy of all gradients")
        case Sharding.FULL_SHARD | Sharding.SHARD_GRAD_OP:
            return Term(name, found.largest_unit_trained * width.trained, "the gradients of the largest unit")
        case Sharding.ZERO1 | Sharding.ZERO2 | Sharding.ZERO3:
            count = min(plan.bucket_elements, found.trained_elements)
            return Term(name, count * width.trained, f"{count:,} numbers x {width.trained} B")


def _gathered(weights: Term, found: Parameters, plan: TrainingPlan) -> Term:
    """Whole weights of the unit that computes and of the one fetched ahead."""
    name = "gathered weights"
    offloaded = plan.offload is Offload.ALL
    if plan.sharding.stage < 3 or (plan.data_parallel == 1 and not offloaded):
        return Term(name, 0, "nothing is divided")
    absent = weights.n_bytes - (0 if offloaded else share_bytes(weights.n_bytes, plan.data_parallel))
    return Term(
        name, min(2 * found.largest_unit_bytes, absent), f"2 units x {found.largest_unit_bytes:,} B, at most all"
    )


def _passing_terms(
    steps: tuple[Moment, ...], run: Run, plan: TrainingPlan, found: Parameters, width: Widths
) -> tuple[Term, ...]:
    """What comes and goes within a step, at its largest."""
    largest: dict[str, int] = {}
    for step in steps:
        for name, n_bytes in step.held:
            largest[name] = max(n_bytes, largest.get(name, 0))
    where = {name: step.name for step in steps for name, n_bytes in step.held if n_bytes == largest[name]}
    tokens = f"{plan.batch_size} x {plan.sequence_length} tokens"
    layers = len(run.layers)
    usual = run.layers[-1]
    if plan.gradient_checkpointing:
        saved = f"{tokens}: {layers} layers' inputs x {usual.input_bytes:,} B, one layer again {usual.saved_bytes:,} B"
    else:
        saved = f"{tokens}: {layers} layers x {usual.saved_bytes:,} B ({plan.attention} attention)"
    why = {
        "gradients": f"{found.trained_elements:,} x {width.trained} B"
        + (f" / {plan.data_parallel} ranks" if plan.sharding.stage >= 2 else ""),
        "activations": f"{saved}; {run.tables_bytes:,} B of token numbers and tables",
        "weight casts": "autocast's bfloat16 copies of the weights, kept for the backward pass",
        "logits and loss": f"{tokens}: logits, float32 log-probabilities, their gradients; final norm",
        "temporary": "gradients under way and scratch",
    }
    return tuple(Term(name, largest[name], f"{why[name]}; most at: {where[name]}") for name in why if name in largest)


def _assumed(layout: Layout, fields: Fields, plan: TrainingPlan, run: Run) -> tuple[str, ...]:
    """Everything beyond what was proven against real runs, in words."""
    found = list(layout.guessed)
    if run.unknown_layers:
        found += [f"{run.unknown_layers} layers have parts that are counted by their projections only"] * 2
    if fields.language().model_type not in COMPARED:
        found += ["layers of a family that was not trained beside its account, or disagreed with it"] * 2
    if run.experts:
        found.append("tokens spread evenly over experts")
    if layout.towers:
        found += ["encoders of images and sounds: their weights are counted, not their activations"] * 2
    if plan.on_gpu:
        found.append("a GPU's allocator and kernels")
    if plan.attention is Attention.FLASH:
        found.append("flash attention saves what fused attention saves")
    if plan.method is Method.QLORA or plan.optimizer is Optimizer.ADAM8BIT:
        found.append("quantized storage by its publication")
    if plan.sharding is not Sharding.NONE or plan.data_parallel > 1 or plan.tensor_parallel > 1:
        found.append("buffers of communication by their definition")
    if plan.offload is not Offload.NONE:
        found.append("transfers to the host by their definition")
    return tuple(found)
