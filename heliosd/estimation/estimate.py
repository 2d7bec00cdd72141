"""What a replica of a stored model will take on each device, before anything loads, and what limits it gets.

The account comes from the configuration and the headers (`account`), the KV cache's size from the wishes or from what
leaves room for others; what is assumed is said in `notes`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil, hypot
from typing import Any

from heliosd.core.hardware import DeviceKind
from heliosd.core.messages import Basis, Footprint
from heliosd.core.profile import ModelProfile
from heliosd.core.units import GiB, format_bytes
from heliosd.errors import BadRequest
from heliosd.estimation.account import DeviceAccount, Term, account, widest
from heliosd.estimation.cache import cache_of
from heliosd.estimation.calibration import Calibration, apply
from heliosd.estimation.known import Known
from heliosd.estimation.kv_pages import KvPages
from heliosd.estimation.launch import CURRENT, Launch, Platform, Version
from heliosd.estimation.loads import Asked, Level, law_terms
from heliosd.estimation.model import Model
from heliosd.estimation.resolve import resolve
from heliosd.estimation.ridge import features

# Left to itself, Helios gives a model room for so many requests of full length, but no more than this share of a
# device, so that several models fit side by side.
AUTO_SEQUENCES = 4
AUTO_SHARE = 4
UNKNOWN_KV_BYTES = GiB
UNKNOWN_MODEL_LEN = 4096
UNKNOWN_OVERHEAD_BYTES = 2 * GiB
HOST_SEQUENCES = 32
GPU_SEQUENCES = 256


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator or the caller set; None leaves it to Helios."""

    kv_cache_bytes: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    dtype: str = "auto"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    """Stages, each on `tensor_parallel` devices of its own."""
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    """Passed on to the engine; those that change its memory are read here too."""


@dataclass(frozen=True, slots=True)
class Place:
    """The device it is meant for, as far as an engine's defaults and kernels ask."""

    kind: DeviceKind
    capacity_bytes: int
    name: str = ""
    room_bytes: int | None = None
    """What could ever be promised of it: a KV cache whose size is ours to choose stays within. None: any size."""


@dataclass(frozen=True, slots=True)
class Estimate:
    per_device: Footprint
    device_count: int
    max_model_len: int
    max_num_seqs: int
    kv_tokens: int
    kv_bytes_per_token: int
    notes: tuple[str, ...]
    accounts: tuple[DeviceAccount, ...] = ()
    """A device of each pipeline stage, term by term; empty when nothing is known of the model but its size."""
    launch: Launch | None = None
    basis: Basis | None = None
    kv_least_bytes: int = 0
    """The KV cache of one longest request; 0 where the KV cache is not ours to change."""
    kv_most_bytes: int = 0
    """The KV cache of as many longest requests as are worked on at once; 0 likewise."""
    pipeline_parallel: int = 1
    """Stages; `per_device` is what a device of the neediest takes."""


@dataclass(frozen=True, slots=True)
class History:
    """What was measured on this node, and under what this start would be kept."""

    calibration: Calibration
    engine: str
    """Kind and version, such as `vllm 0.32.0`."""
    arguments: str
    revision: str


def estimate(
    known: Known,
    profile: ModelProfile,
    wishes: Wishes,
    place: Place,
    history: History | None = None,
    version: Version = CURRENT,
) -> Estimate:
    """Predict the bytes on each of `wishes.tensor_parallel` devices like `place`, of the stage that needs most.

    Every stage is given as many bytes of KV cache: the engine keeps as many blocks on each as fit on the neediest.
    `history`: what starts took here before; it corrects the laws. Raises BadRequest when the wishes contradict each
    other: a KV cache too small for one request of the length asked for, heads that ranks cannot share, more stages than
    layers.
    """
    if known.model is None:
        return _by_size(profile, wishes, place, known.fault, history)
    model = known.model
    notes = list(model.notes)
    launch = launch_of(wishes, place, model, version)
    _check_division(model, wishes)
    length = wishes.max_model_len or model.sizes.positions or profile.max_model_len or UNKNOWN_MODEL_LEN
    if not (wishes.max_model_len or model.sizes.positions or profile.max_model_len):
        notes.append(f"the configuration does not say how long a request may be: {length} tokens are assumed")
    resolved = resolve(model, launch)
    pages = cache_of(model, launch, resolved)
    stages = account(model, launch, stored=known.stored)
    chosen = widest(stages)
    law = law_terms(chosen)
    features_ = features(
        weights_bytes=chosen.weights.likely_bytes,
        layers=model.sizes.layers,
        hidden=model.sizes.hidden,
        vocabulary=model.sizes.vocabulary,
        sequences=resolved.defaults.max_num_seqs,
        batched_tokens=resolved.defaults.max_num_batched_tokens,
        tensor_parallel=wishes.tensor_parallel,
        version=version,
    )
    terms = _corrected(law, profile, wishes, place, history, features_, notes)
    weights, overhead = terms["weights"], terms["overhead"]
    margin = ceil(hypot(weights.high_bytes - weights.likely_bytes, overhead.high_bytes - overhead.likely_bytes))
    fixed_bytes = weights.likely_bytes + overhead.likely_bytes + margin
    kv_bytes, length = _kv_cache(wishes, pages, length, _share(place, fixed_bytes), notes)
    least, most = _kv_bounds(wishes, pages, length, place)
    given = Term(kv_bytes, kv_bytes, kv_bytes, "given to the engine, exact")
    likely = Footprint(weights.likely_bytes, kv_bytes, overhead.likely_bytes)
    if model.layout is not None and model.layout.guessed:
        notes.append(f"assumed, as the configuration is silent: {', '.join(model.layout.guessed[:4])}")
    return Estimate(
        per_device=replace(likely, overhead_bytes=likely.overhead_bytes + margin),
        device_count=launch.world_size,
        max_model_len=length,
        max_num_seqs=sequences(wishes, place.kind),
        kv_tokens=pages.tokens_in(kv_bytes) if pages.block_bytes else 0,
        kv_bytes_per_token=per_token_bytes(pages, length),
        notes=tuple(notes),
        accounts=tuple(replace(each, kv_cache=given) for each in stages),
        launch=launch,
        basis=Basis(
            architecture=profile.architecture or "",
            device_name=place.name,
            likely=likely,
            law={name: term.likely_bytes for name, term in law.items()},
            features=features_,
        ),
        kv_least_bytes=least,
        kv_most_bytes=most,
        pipeline_parallel=wishes.pipeline_parallel,
    )


def _corrected(
    law: Mapping[str, Term],
    profile: ModelProfile,
    wishes: Wishes,
    place: Place,
    history: History | None,
    known_features: Mapping[str, float],
    notes: list[str],
) -> Mapping[str, Term]:
    """The law's terms, corrected by what was measured here."""
    if history is None:
        notes.append("not measured here yet: the overhead is predicted")
        return law
    asked = Asked(
        engine=history.engine,
        architecture=profile.architecture or "",
        device_kind=place.kind,
        device_name=place.name,
        tensor_parallel=wishes.tensor_parallel,
        arguments=history.arguments,
        revision=history.revision,
        features=known_features,
    )
    residuals = history.calibration.residuals(asked, law)
    level = residuals["overhead"].level
    if level is None:
        notes.append("not measured here yet: the overhead is predicted")
    elif level is not Level.REVISION:
        notes.append(f"not measured here yet; corrected by {residuals['overhead'].loads} starts of {level}")
    return {name: apply(term, residuals[name]) for name, term in law.items()}


def launch_of(wishes: Wishes, place: Place, model: Model, version: Version = CURRENT) -> Launch:
    """The start that heliosd would make of these wishes."""
    given = {str(name).replace("-", "_"): value for name, value in wishes.engine_args.items()}
    host = place.kind is DeviceKind.HOST
    compilation = given.get("compilation_config")
    captures = {**(compilation if isinstance(compilation, Mapping) else {}), **given}
    return Launch(
        version=version,
        platform=Platform.CPU if host else Platform.CUDA,
        tensor_parallel=wishes.tensor_parallel,
        pipeline_parallel=wishes.pipeline_parallel,
        expert_parallel=given.get("enable_expert_parallel") is True,
        dtype=None if wishes.dtype == "auto" else wishes.dtype,
        quantization=_word(given.get("quantization")),
        max_model_len=wishes.max_model_len or model.sizes.positions or UNKNOWN_MODEL_LEN,
        max_num_seqs=sequences(wishes, place.kind),
        max_num_batched_tokens=_count(given.get("max_num_batched_tokens")),
        enforce_eager=host or given.get("enforce_eager") is True or captures.get("cudagraph_mode") in _NO_GRAPHS,
        max_capture_size=_count(captures.get("max_cudagraph_capture_size")),
        capture_sizes=_sizes(captures.get("cudagraph_capture_sizes")),
        block_size=_count(given.get("block_size")),
        prefix_caching=given.get("enable_prefix_caching") is not False,
        max_loras=(_count(given.get("max_loras")) or 1) if given.get("enable_lora") is True else 0,
        max_lora_rank=_count(given.get("max_lora_rank")) or 16,
        language_only=given.get("language_model_only") is True,
        device_name=place.name,
        device_bytes=None if host else place.capacity_bytes,
    )


_NO_GRAPHS = ("NONE", "none", 0)


def _sizes(said: Any) -> tuple[int, ...]:
    """Batch sizes as an operator or Helios lists them."""
    if not isinstance(said, list | tuple):
        return ()
    return tuple(size for size in said if isinstance(size, int) and not isinstance(size, bool) and size > 0)


def sequences(wishes: Wishes, kind: DeviceKind) -> int:
    """How many an engine on such a device works on at once."""
    return wishes.max_num_seqs or (HOST_SEQUENCES if kind is DeviceKind.HOST else GPU_SEQUENCES)


def per_token_bytes(pages: KvPages, length: int) -> int:
    """Bytes of KV cache for each token of a request of `length`; 0 when nothing is kept."""
    if not pages.block_bytes or length < 1:
        return 0
    return pages.request_blocks(length) * pages.block_bytes // length


def _check_division(model: Model, wishes: Wishes) -> None:
    heads, ranks = model.sizes.heads, wishes.tensor_parallel
    layers, stages = model.sizes.layers, wishes.pipeline_parallel
    if layers and stages > layers:
        raise BadRequest(
            f"cannot give each of {stages} pipeline stages one of {layers} layers: set pipeline_parallel to at most "
            f"{layers}",
            code="bad_limits",
            param="pipeline_parallel",
        )
    if ranks > 1 and heads and heads % ranks:
        raise BadRequest(
            f"cannot divide {heads} attention heads over {ranks} devices: set tensor_parallel to a divisor of {heads}",
            code="bad_limits",
            param="tensor_parallel",
        )


def _share(place: Place, fixed_bytes: int) -> int:
    """What of a device a KV cache may take that nobody asked for."""
    share = place.capacity_bytes // AUTO_SHARE
    return share if place.room_bytes is None else min(share, max(0, place.room_bytes - fixed_bytes))


def _kv_cache(wishes: Wishes, pages: KvPages, length: int, share: int, notes: list[str]) -> tuple[int, int]:
    """(bytes of KV cache, longest request): the cache always holds at least one request of that length."""
    if not pages.block_bytes:
        return 0, length

    def needed(tokens: int) -> int:
        """For one request, the engine's own block included."""
        return pages.bytes_for_requests(1, tokens)

    one = needed(length)
    if wishes.kv_cache_bytes is None:
        if one > share and wishes.max_model_len is None:
            share = max(share, needed(pages.block_tokens))
            fits = _longest(needed, share, length, pages.block_tokens)
            notes.append(
                f"max_model_len {length} -> {fits}: requests are limited to what {format_bytes(share)} of KV cache "
                f"hold; that of one full request would need {format_bytes(one - share)} more"
            )
            return share, fits
        return max(one, min(AUTO_SEQUENCES * one, share)), length
    if wishes.kv_cache_bytes >= one:
        return wishes.kv_cache_bytes, length
    fits = _longest(needed, wishes.kv_cache_bytes, length, pages.block_tokens)
    if wishes.max_model_len is not None or fits < pages.block_tokens:
        raise BadRequest(
            f"cannot hold a request of {length} tokens in a KV cache of {format_bytes(wishes.kv_cache_bytes)}: "
            f"{length} tokens x {per_token_bytes(pages, length)} bytes need {format_bytes(one)}; set a larger kv_cache "
            "or a smaller max_model_len",
            code="bad_limits",
        )
    notes.append(f"requests are limited to {fits} of {length} tokens by the KV cache")
    return wishes.kv_cache_bytes, fits


def _kv_bounds(wishes: Wishes, pages: KvPages, length: int, place: Place) -> tuple[int, int]:
    """(least, most) bytes of KV cache that make sense; zeros where the operator chose it, or the host's RAM, which
    others need too, would be filled."""
    if wishes.kv_cache_bytes is not None or not pages.block_bytes or place.kind is DeviceKind.HOST:
        return 0, 0
    return pages.bytes_for_requests(1, length), pages.bytes_for_requests(sequences(wishes, place.kind), length)


def _longest(needed: Any, room: int, length: int, block: int) -> int:
    """The most tokens, in whole blocks, whose request fits into `room` bytes."""
    low, high = 0, length // block
    while low < high:
        middle = (low + high + 1) // 2
        if needed(middle * block) <= room:
            low = middle
        else:
            high = middle - 1
    return low * block


def _by_size(
    profile: ModelProfile, wishes: Wishes, place: Place, fault: str | None, history: History | None
) -> Estimate:
    """A model of which nothing is known but the size of its files: wide guesses, and said so."""
    length = wishes.max_model_len or profile.max_model_len or UNKNOWN_MODEL_LEN
    kv_bytes = wishes.kv_cache_bytes or UNKNOWN_KV_BYTES
    notes = [f"its configuration is of no use: {fault}"] if fault else ["its configuration could not be read"]
    notes.append(f"the configuration does not describe its attention: {format_bytes(kv_bytes)} of KV cache assumed")
    ranks = wishes.tensor_parallel * wishes.pipeline_parallel
    weights = profile.weights_bytes // ranks
    guess = Term(UNKNOWN_OVERHEAD_BYTES, UNKNOWN_OVERHEAD_BYTES // 4, UNKNOWN_OVERHEAD_BYTES, "a guess")
    law = {"weights": Term(weights, weights, weights, "the size of its files"), "overhead": guess}
    terms = _corrected(law, profile, wishes, place, history, {}, notes)
    return Estimate(
        per_device=Footprint(terms["weights"].likely_bytes, kv_bytes, terms["overhead"].high_bytes),
        device_count=ranks,
        max_model_len=length,
        max_num_seqs=sequences(wishes, place.kind),
        kv_tokens=length,
        kv_bytes_per_token=0,
        notes=tuple(notes),
        basis=Basis(
            architecture=profile.architecture or "",
            device_name=place.name,
            likely=Footprint(terms["weights"].likely_bytes, kv_bytes, terms["overhead"].likely_bytes),
            law={name: term.likely_bytes for name, term in law.items()},
            features={},
        ),
        pipeline_parallel=wishes.pipeline_parallel,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value not in ("", "none") else None
