"""What training takes on a device: from a request to the answer. Pure."""

from collections.abc import Sequence

from heliosd.api.estimate_target import Target
from heliosd.api.estimate_views import architecture_of, training_account_view, training_view
from heliosd.core.units import format_bytes
from heliosd.errors import BadRequest
from heliosd.estimation import training_plan
from heliosd.estimation.fit import room_of
from heliosd.estimation.launch import Platform
from heliosd.estimation.model import Model
from heliosd.estimation.training import training_account
from heliosd.estimation.training_plan import TrainingPlan
from heliosd.wire import EstimateView, FootprintView, TrainRequest


def trained(name: str, model: Model, wish: TrainRequest, target: Target, notes: Sequence[str]) -> EstimateView:
    """The account of the fullest moment of a step, and whether it fits. Raises BadRequest (`bad_training_plan`)."""
    if model.layout is None:
        raise BadRequest(
            f"cannot plan the training: no family describes the layers of {architecture_of(model)}",
            code="bad_training_plan",
            param="config",
        )
    plan = _plan(wish, on_gpu=target.gpu.platform is not Platform.CPU)
    found = training_account(model.layout, model.fields, plan)
    room = room_of(target.device_bytes)
    held = dict(found.peak.held)
    weights = held.get("weights", 0)
    left = room - found.high_bytes
    fits = left >= 0
    return EstimateView(
        model=name,
        per_device=FootprintView(
            weights_bytes=weights,
            kv_cache_bytes=0,
            overhead_bytes=found.high_bytes - weights,
            total_bytes=found.high_bytes,
        ),
        device_count=plan.data_parallel * plan.tensor_parallel,
        max_model_len=plan.sequence_length,
        kv_tokens=0,
        kv_bytes_per_token=0,
        verdict="fits" if fits else "never_fits",
        reason=f"needs {format_bytes(found.total_bytes)} at the {found.peak.name}, up to "
        f"{format_bytes(found.high_bytes)} with the margin, {format_bytes(room)} there "
        f"({format_bytes(target.device_bytes)} less the reserve): {format_bytes(abs(left))} "
        f"{'left' if fits else 'too much'}",
        notes=list(notes),
        accounts=[training_account_view(found, plan.data_parallel * plan.tensor_parallel, target.device_bytes)],
        device=target.name,
        architecture=architecture_of(model),
        parameters=model.layout.parameters,
        quantization=model.quantization.name,
        training=training_view(found),
    )


def _plan(wish: TrainRequest, *, on_gpu: bool) -> TrainingPlan:
    return TrainingPlan(
        method=training_plan.Method(wish.method),
        optimizer=training_plan.Optimizer(wish.optimizer),
        precision=training_plan.Precision(wish.precision),
        batch_size=wish.batch_size,
        sequence_length=wish.sequence_length,
        gradient_checkpointing=wish.gradient_checkpointing,
        gradient_accumulation=wish.gradient_accumulation,
        attention=training_plan.Attention(wish.attention),
        rank=wish.rank,
        targets=tuple(wish.targets),
        momentum=wish.momentum,
        sharding=training_plan.Sharding(wish.sharding),
        data_parallel=wish.data_parallel,
        tensor_parallel=wish.tensor_parallel,
        offload=training_plan.Offload(wish.offload),
        on_gpu=on_gpu,
    )
