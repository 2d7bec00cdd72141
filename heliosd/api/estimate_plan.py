"""What an engine, or a training, would take on a device of whatever kind: from a request to the answer. Pure.

Nothing of this node is asked: the model comes read, the device chosen. Raises BadRequest naming the field.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heliosd.api.estimate_target import Target
from heliosd.api.estimate_train import trained
from heliosd.api.estimate_views import (
    account_view,
    architecture_of,
    change_views,
    overflow_view,
    recommendation_view,
)
from heliosd.core.adapters import AdapterRoom
from heliosd.core.units import format_bytes
from heliosd.errors import BadRequest, CorruptData
from heliosd.estimation.account import widest
from heliosd.estimation.catalogue import Gpu, gpu, priced
from heliosd.estimation.engine_versions import parse_version
from heliosd.estimation.estimate import GPU_SEQUENCES, HOST_SEQUENCES, per_token_bytes
from heliosd.estimation.fit import Fit, judged
from heliosd.estimation.headers import LENGTH_BYTES, Header, parse_header
from heliosd.estimation.known import Known
from heliosd.estimation.kv_overflow import Load, lengths_by, overflow
from heliosd.estimation.launch import CURRENT, Launch, Platform, Version
from heliosd.estimation.model import Model, read_model
from heliosd.estimation.nearest import nearest_changes
from heliosd.estimation.parallelism import Parallel, replication, why_not
from heliosd.estimation.precision import Precision, Support, at_precision
from heliosd.estimation.recommend import recommend
from heliosd.estimation.sizing import largest_batched_tokens, largest_model_len, largest_sequences
from heliosd.estimation.stored_tensors import StoredWeights, stored_weights
from heliosd.estimation.trials import Trials
from heliosd.wire import (
    ChangeView,
    EstimateRequest,
    EstimateView,
    FootprintView,
    LoadRequest,
    OverflowView,
    RecommendationView,
    SizingView,
    WeightsHeader,
)

MOST_PARAMETERS = 10**15
"""More than any model has; a configuration that comes to it is a mistake."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is asked about."""

    name: str
    model: Model
    stored: StoredWeights | None = None
    """What the headers of its files say, where they were read."""
    adapters: AdapterRoom | None = None
    """What the engine keeps free for adapters."""


def subject_of(asked: EstimateRequest) -> Subject:
    """The model of a request that brings its configuration. Raises BadRequest (`bad_config`)."""
    config = asked.config or {}
    model = read_model(config, asked.quantize)
    name = config.get("_name_or_path")
    called = name if isinstance(name, str) and name else architecture_of(model)
    return Subject(called, model, _stored(asked.headers) if asked.headers and not asked.quantize else None)


def _stored(headers: Sequence[WeightsHeader]) -> StoredWeights:
    read: list[Header] = []
    for place, each in enumerate(headers):
        text = each.header.encode()
        try:
            read.append(parse_header(len(text).to_bytes(LENGTH_BYTES, "little") + text, each.size_bytes))
        except CorruptData as error:
            raise BadRequest(
                f"cannot read header {place} of the weights: {error.cause}", code="bad_config", param="headers"
            ) from error
    return stored_weights(read)


def subject_from(known: Known, name: str, quantize: str | None) -> Subject:
    """The model of a revision whose files were read. Raises BadRequest when they cannot be understood."""
    if known.model is None:
        fault = (known.fault or "its files have no configuration").removeprefix("cannot read the configuration: ")
        raise BadRequest(f"cannot read the configuration of {name}: {fault}", code="bad_config", param="config")
    if quantize is None:
        return Subject(name, known.model, known.stored)
    if quantize not in tuple(Precision):
        raise BadRequest(
            f"cannot quantize {name} by {quantize!r}: its configuration was read already; set `precision`",
            param="quantize",
        )
    return Subject(name, at_precision(known.model, Precision(quantize)))


def planned(asked: EstimateRequest, subject: Subject, target: Target, *, changes: bool = True) -> EstimateView:
    """The answer: for each stage of the pipeline an account, what the rest holds, and whether it fits."""
    model = subject.model
    parameters = model.layout.parameters if model.layout is not None else None
    if parameters is not None and parameters > MOST_PARAMETERS:
        raise BadRequest(
            f"cannot read the configuration: it comes to {parameters:.3g} parameters, "
            f"the limit is {MOST_PARAMETERS:.0e}",
            code="bad_config",
            param="config",
        )
    if asked.train is not None:
        if asked.precision is not None:
            raise BadRequest(
                "cannot plan the training: `precision` is for serving; set train.precision",
                code="bad_training_plan",
                param="precision",
            )
        return trained(subject.name, model, asked.train, target, _notes(model, None, asked, target))
    known = priced(asked.prices)  # one that makes no sense is refused, whether it is needed or not
    launch, model, stored = _settled(asked, subject, target)
    trials = Trials(model, stored)
    fit = _judged(asked, trials, launch, target)
    stages = fit.stages
    chosen = widest(stages)
    length = fit.model_len
    concurrency = fit.trial.cache.max_concurrency(length, fit.kv_bytes)
    return EstimateView(
        model=subject.name,
        per_device=FootprintView(
            weights_bytes=chosen.weights.likely_bytes,
            kv_cache_bytes=fit.kv_bytes,
            overhead_bytes=chosen.booked_bytes - chosen.weights.likely_bytes - fit.kv_bytes,
            total_bytes=chosen.booked_bytes,
        ),
        device_count=launch.world_size * launch.data_parallel,
        pipeline_parallel=launch.pipeline_parallel,
        max_model_len=length,
        kv_tokens=fit.tokens,
        kv_bytes_per_token=per_token_bytes(fit.trial.cache, length),
        verdict="fits" if fit.fits else "never_fits",
        reason=fit.verdict,
        notes=_notes(model, stored, asked, target, launch),
        accounts=[
            account_view(each, stage, launch.tensor_parallel * launch.data_parallel, target.device_bytes)
            for stage, each in enumerate(stages)
        ],
        device=target.name,
        engine_version=".".join(map(str, launch.version)),
        architecture=architecture_of(model),
        parameters=parameters,
        quantization=model.quantization.name,
        max_num_seqs=fit.max_num_seqs,
        concurrency=None if concurrency == float("inf") else round(concurrency, 2),
        longest_context=fit.longest_context,
        overflow=_overflow(asked.load, fit, launch.data_parallel) if asked.load else None,
        changes=[] if fit.fits or not changes else _changes(asked, model, launch, fit, target, known),
        sizing=_sizing(asked, trials, launch, target.device_bytes) if asked.size else None,
        recommendation=_recommendation(asked, model, launch, fit, known) if asked.recommend else None,
    )


def fitted(asked: EstimateRequest, subject: Subject, target: Target) -> Fit:
    """Whether each device takes its part, and how much is needed. Raises BadRequest where no engine starts so."""
    launch, model, stored = _settled(asked, subject, target)
    return _judged(asked, Trials(model, stored), launch, target)


def _settled(asked: EstimateRequest, subject: Subject, target: Target) -> tuple[Launch, Model, StoredWeights | None]:
    launch = _launch(asked, target)
    if subject.adapters is not None:
        launch = replace(launch, max_loras=subject.adapters.at_once, max_lora_rank=subject.adapters.max_rank)
    model, stored = _at_precision(asked, subject, target)
    _check_division(model, launch, target)
    if launch.speculative_tokens and model.layout is not None and not model.layout.drafts:
        raise BadRequest(
            f"cannot draft {launch.speculative_tokens} tokens with {subject.name}: its checkpoint has no draft layers",
            code="bad_limits",
            param="speculative_tokens",
        )
    return launch, model, stored


def _judged(asked: EstimateRequest, trials: Trials, launch: Launch, target: Target) -> Fit:
    return judged(
        trials.at(launch), target.device_bytes, kv_bytes=asked.kv_cache_bytes, concurrency=asked.concurrency or 1
    )


def _launch(asked: EstimateRequest, target: Target) -> Launch:
    if None not in (asked.context, asked.max_model_len) and asked.context != asked.max_model_len:
        raise BadRequest(
            f"cannot serve {asked.context} and {asked.max_model_len} tokens: both fields mean one",
            code="bad_limits",
            param="context",
        )
    host = target.gpu.platform is Platform.CPU
    return Launch(
        version=_version(asked.engine_version),
        platform=target.gpu.platform,
        tensor_parallel=asked.tensor_parallel,
        pipeline_parallel=asked.pipeline_parallel,
        data_parallel=asked.data_parallel,
        expert_parallel=asked.expert_parallel,
        quantization=asked.quantize,
        kv_cache_dtype=asked.kv_cache_dtype,
        max_model_len=asked.context or asked.max_model_len,
        max_num_seqs=asked.max_num_seqs or asked.concurrency or (HOST_SEQUENCES if host else GPU_SEQUENCES),
        max_num_batched_tokens=asked.max_num_batched_tokens,
        speculative_tokens=asked.speculative_tokens,
        enforce_eager=asked.enforce_eager or host,
        device_name=target.gpu.device_name,
        device_bytes=target.device_bytes,
    )


def _version(text: str | None) -> Version:
    if text is None:
        return CURRENT
    found = parse_version(text)
    if found is None:
        raise BadRequest(f"cannot read {text!r} as a release of vLLM: write it like 0.19.0", param="engine_version")
    return found


def _at_precision(asked: EstimateRequest, subject: Subject, target: Target) -> tuple[Model, StoredWeights | None]:
    if asked.kv_cache_dtype.startswith("fp8") and not target.gpu.fp8_cache:
        raise BadRequest(
            f"cannot keep the KV cache in {asked.kv_cache_dtype}: {target.name} does not read it",
            code="bad_precision",
            param="kv_cache_dtype",
        )
    if asked.precision is None:
        return subject.model, subject.stored
    precision = Precision(asked.precision)
    if target.gpu.support(precision) is Support.NONE:
        raise BadRequest(
            f"cannot run {precision} weights: {target.name} does not compute with them",
            code="bad_precision",
            param="precision",
        )
    model = at_precision(subject.model, precision)
    return model, (subject.stored if model is subject.model else None)


def _check_division(model: Model, launch: Launch, target: Target) -> None:
    division = Parallel(
        launch.tensor_parallel, launch.pipeline_parallel, launch.data_parallel, expert=launch.expert_parallel
    )
    reason = why_not(model, division)
    if reason is not None:
        param = "pipeline_parallel" if "stages" in reason else "tensor_parallel"
        param = "expert_parallel" if "experts" in reason else param
        raise BadRequest(f"{reason}; {target.name} or not, no engine starts so", code="bad_limits", param=param)


def _notes(
    model: Model, stored: StoredWeights | None, asked: EstimateRequest, target: Target, launch: Launch | None = None
) -> list[str]:
    notes = list(model.notes)
    if target.assumed:
        notes.append(target.assumed)
    if launch is not None and launch.tensor_parallel > 1:
        notes += _repeated(model, launch)
    if asked.quantize and model.quantization.name.lower() != asked.quantize.lower():
        notes.append(f"the weights are {model.quantization.name}: `quantize` is for plain checkpoints")
    if stored is None and model.layout is not None and model.layout.guessed:
        notes.append(f"assumed, as the configuration is silent: {', '.join(model.layout.guessed[:4])}")
    return notes


def _repeated(model: Model, launch: Launch) -> list[str]:
    """What dividing a replica costs in weights."""
    found = replication(model, launch, Parallel(launch.tensor_parallel, launch.pipeline_parallel))
    if found is None:
        return []
    parts = [
        f"{format_bytes(size)} {what}"
        for size, what in (
            (found.whole_bytes, "that every rank holds whole"),
            (found.kv_heads_bytes, "of KV heads fewer than ranks"),
            (found.divided_bytes, "that does not divide evenly"),
            (found.tables_bytes, "of tables"),
        )
        if size > 0
    ]
    more = found.total_bytes - found.single_bytes
    return [f"{launch.world_size} ranks together hold {format_bytes(more)} more weights than one: {', '.join(parts)}"]


def _overflow(load: LoadRequest, fit: Fit, replicas: int) -> OverflowView:
    """Of one replica; rates are of all."""
    found = overflow(
        Load(
            rate=load.rate / replicas,
            prompt=lengths_by(load.prompt_tokens, load.prompt_p95),
            output=lengths_by(load.output_tokens, load.output_p95),
            speed=load.tokens_per_second,
            block_tokens=fit.trial.cache.block_tokens,
            most_sequences=fit.max_num_seqs,
        ),
        fit.tokens,
    )
    return overflow_view(found, fit.tokens, replicas)


def _changes(
    asked: EstimateRequest, model: Model, launch: Launch, fit: Fit, target: Target, known: Sequence[Gpu]
) -> list[ChangeView]:
    own = next((each for each in known if each.name == target.gpu.name), None)
    here = replace(own, usable_bytes=target.device_bytes) if own else target.gpu
    found = nearest_changes(
        model,
        here,
        launch.world_size,
        context=fit.model_len,
        concurrency=asked.concurrency or 1,
        others=known,
        launch=replace(launch, max_num_batched_tokens=asked.max_num_batched_tokens),
    )
    return change_views(found)


def _sizing(asked: EstimateRequest, trials: Trials, launch: Launch, device_bytes: int) -> SizingView:
    concurrency, kv_bytes = asked.concurrency or 1, asked.kv_cache_bytes
    sequences = largest_sequences(trials.model, launch, device_bytes, kv_bytes=kv_bytes, trials=trials)
    tokens = largest_batched_tokens(
        trials.model, launch, device_bytes, concurrency=concurrency, kv_bytes=kv_bytes, trials=trials
    )
    # The length asked for is a wish here, not a bound.
    length = largest_model_len(
        trials.model,
        replace(launch, max_model_len=None),
        device_bytes,
        concurrency=concurrency,
        kv_bytes=kv_bytes,
        trials=trials,
    )
    return SizingView(
        max_num_seqs=sequences.value if sequences else None,
        max_num_batched_tokens=tokens.value if tokens else None,
        max_model_len=length.value if length else None,
    )


def _recommendation(
    asked: EstimateRequest, model: Model, launch: Launch, fit: Fit, known: Sequence[Gpu]
) -> RecommendationView:
    found = recommend(
        model,
        context=fit.model_len,
        concurrency=asked.concurrency or 1,
        cards=[gpu(name, known) for name in asked.gpus] or known,
        launch=launch,
    )
    return recommendation_view(found)
