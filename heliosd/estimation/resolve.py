"""Fills what a launch leaves open with the engine's own defaults for this release, card and model."""

import functools
from dataclasses import dataclass, replace

from heliosd.estimation.engine_cards import Card, card
from heliosd.estimation.engine_defaults import EngineDefaults, Facts, engine_defaults
from heliosd.estimation.engine_sampler import SamplerPath
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model
from heliosd.estimation.weights import DTYPE_BYTES

UNKNOWN_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class Resolved:
    """A launch without gaps."""

    launch: Launch
    defaults: EngineDefaults
    card: Card
    dtype: str
    """Of activations and of what is not quantized."""
    model_len: int
    sampler: SamplerPath

    @property
    def element_bytes(self) -> int:
        return DTYPE_BYTES.get(self.dtype, 2)


@functools.lru_cache(maxsize=256)
def _filled(launch: Launch, sequences: int, tokens: int) -> Launch:
    """Kept, because many models are asked about under one launch, and copying it takes a twentieth of an estimate."""
    return replace(launch, max_num_seqs=sequences, max_num_batched_tokens=tokens)


def resolve(model: Model, launch: Launch) -> Resolved:
    """What an engine started with `launch` on this model would use."""
    sizes, text = model.sizes, model.fields.language()
    length = launch.max_model_len or sizes.positions or UNKNOWN_LENGTH
    names = model.fields.items("architectures")
    facts = Facts(
        model_len=length,
        architecture=names[0] if names and isinstance(names[0], str) else "",
        multimodal=sizes.tower is not None or sizes.encoder_positions > 0 or sizes.audio,
        pooling=sizes.pooling or launch.pooling,
        encoder_decoder=model.fields.flag("is_encoder_decoder") or sizes.encoder_positions > 0,
        mla=sizes.latent,
        sliding_window=bool(text.optional("sliding_window")) and text.flag("use_sliding_window", default=True),
        experts=sizes.experts > 0,
        quantized=model.quantization.linear is not None or model.quantization.experts is not None,
        hybrid=sizes.recurrent,
    )
    if facts.architecture == "GptOssForCausalLM" and launch.max_capture_size is None and launch.version >= (0, 12, 0):
        # Its own configuration in the engine raises the largest captured batch from 512.
        launch = replace(launch, max_capture_size=1024)
    defaults = engine_defaults(launch, facts)
    sampler = defaults.sampler
    if launch.native_sampler and sampler is SamplerPath.FLASHINFER:
        sampler = SamplerPath.TRITON
    return Resolved(
        launch=_filled(launch, defaults.max_num_seqs, defaults.max_num_batched_tokens),
        defaults=defaults,
        card=card(launch.device_name, launch.device_bytes, launch.platform),
        dtype=launch.dtype or model.dtype,
        model_len=length,
        sampler=sampler,
    )
