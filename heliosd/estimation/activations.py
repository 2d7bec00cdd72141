"""The activation peak of the engine's profiling run: a maximum of laws, each from the tensors alive at that moment.

The run forwards `max_num_batched_tokens` dummy tokens, then samples for `max_num_seqs` sequences. Its peak is either in
a layer, or in the sampler, whose logits span the whole vocabulary on every rank. What lives through both adds to both:
the output of encoders of images, and since 0.13 the workspace that fused experts and sparse attention share.
"""

from dataclasses import dataclass

from heliosd.estimation.constants import Era
from heliosd.estimation.dimensions import Dimensions
from heliosd.estimation.engine_defaults import Books
from heliosd.estimation.engine_sampler import (
    SamplerPath,
    matrix_workspace_bytes,
    sampler_peak_bytes,
    sampling_hidden_rows,
)
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model
from heliosd.estimation.quantization_schemes import MXFP4
from heliosd.estimation.resolve import Resolved
from heliosd.estimation.sparse_attention import SparseWorkspace, sparse_workspace
from heliosd.estimation.weights import padded_vocabulary


@dataclass(frozen=True, slots=True)
class ActivationPeak:
    """Bytes on one rank, and which law gave them."""

    total_bytes: int
    sampler_bytes: int
    layer_bytes: int
    lasting_bytes: int
    """Alive in both phases, and part of the total."""
    why: str


MANY_RANKS_V0 = 8
"""In V0 only the first rank samples; from as many on the account is that of the others."""


def activation_peak(model: Model, resolved: Resolved, era: Era) -> ActivationPeak:
    """`max(sampler, layer) + lasting`, on the last pipeline stage (only it samples; the others have the layer's part).

    sampler: logits and their copies (`engine_sampler`) `+ hidden rows · hidden size · element`
    layer: the largest of feed-forward, experts, latent or sparse attention and speech encoder, below
    lasting: workspace of experts or of the indexer, outputs and inputs of image encoders, the matrix library's own
    """
    sizes, launch, element = model.sizes, resolved.launch, resolved.element_bytes
    sequences, tokens = resolved.defaults.max_num_seqs, resolved.defaults.max_num_batched_tokens
    if launch.v0:
        sequences = _prompts_v0(model, launch, sequences, tokens)
    sampler = _sampler(sizes, resolved, sequences, tokens)
    workspace = _workspace(model, resolved, tokens, era)
    sparse = sparse_workspace(model, resolved)
    layer = max(
        _feed_forward(sizes, resolved, tokens, era),
        _experts(sizes, resolved, tokens, 0 if era.lasting_workspace and workspace else workspace),
        _attending(sizes, resolved, tokens, sparse),
        _speech(sizes, sequences, element),
        _seeing(sizes, resolved, sequences, tokens),
    )
    encoders = _encoders(sizes, launch, tokens, element)
    kept = workspace if era.lasting_workspace and _keeps_workspace(model) else 0
    lasting = encoders + sparse.lasting_bytes(kept)
    if resolved.defaults.books is not Books.CONSUMED:
        lasting += matrix_workspace_bytes(resolved.card)
    phase = f"{resolved.sampler} sampler of {sequences} sequences over {sizes.vocabulary} tokens"
    if layer > sampler:
        phase = f"{tokens} tokens through the widest layer"
    if workspace and era.lasting_workspace:
        phase += f" + workspace of experts, {sizes.experts_per_token} of {sizes.experts}"
    if max(sparse.gathered_bytes, sparse.reserved_bytes) > kept:
        phase += f" + keys that the indexer gathers of {resolved.model_len} tokens"
    if encoders:
        phase += " + outputs and pixels of encoders"
    return ActivationPeak(max(sampler, layer) + lasting, sampler, layer, lasting, phase)


def _prompts_v0(model: Model, launch: Launch, sequences: int, tokens: int) -> int:
    """V0 profiled models that see or hear with as few sequences as fill the step, each with all its images and sounds.

    Source: 0.5.5 to 0.9.2 worker/model_runner.py `_dummy_run` (encoder-decoder models have a run of their own).
    """
    sizes = model.sizes
    if sizes.encoder_positions or model.fields.flag("is_encoder_decoder"):
        return sequences
    item = sizes.audio_tokens
    if sizes.tower is not None and not launch.language_only:
        each = launch.images_per_prompt if launch.images_per_prompt is not None else 1
        item = max(item, each * (sizes.tower.item_tokens or tokens))
    return max(1, min(sequences, tokens // item)) if item else sequences


def _sampler(sizes: Dimensions, resolved: Resolved, sequences: int, tokens: int) -> int:
    if resolved.sampler is SamplerPath.NONE:
        return 0
    if resolved.launch.v0 and resolved.launch.tensor_parallel >= MANY_RANKS_V0:
        return 0
    launch, element = resolved.launch, resolved.element_bytes
    rows = tokens if not launch.v0 and launch.version < (0, 7, 3) else sequences
    hidden = sampling_hidden_rows(launch.version, sequences, tokens, v0=launch.v0, runner2=resolved.defaults.runner2)
    return hidden * sizes.hidden * element + sampler_peak_bytes(
        resolved.sampler,
        launch.version,
        rows,
        padded_vocabulary(sizes.vocabulary),
        element,
        resolved.card.multiprocessors or 132,
    )


def _feed_forward(sizes: Dimensions, resolved: Resolved, tokens: int, era: Era) -> int:
    """`tokens · element · (3 · feed-forward ÷ ranks + hidden rows)`: the gate and up product, what the activation makes
    of it, and the residuals and the attention's output, which the caller still holds."""
    launch = resolved.launch
    ranks = launch.tensor_parallel
    width = (3 if sizes.gated else 2) * -(-sizes.intermediate // ranks)
    if launch.v0:
        held: float = (5 if ranks > 1 else 4) * sizes.hidden
    else:
        held = (2 + era.held_hidden) * sizes.hidden + sizes.heads * sizes.head_dim / ranks
    return round(tokens * resolved.element_bytes * (width + held))


def _experts(sizes: Dimensions, resolved: Resolved, tokens: int, workspace: int) -> int:
    """Routed experts' caches where they live in the layer only, and the residuals."""
    return workspace + tokens * resolved.element_bytes * 4 * sizes.hidden if sizes.experts else 0


def _workspace(model: Model, resolved: Resolved, tokens: int, era: Era) -> int:
    """Caches of fused experts: `tokens · experts per token · element ·` two widths; none in mxfp4 kernels."""
    sizes, launch = model.sizes, resolved.launch
    scheme = model.quantization.experts
    if not sizes.experts or scheme is MXFP4:
        return 0
    ranks = 1 if launch.expert_parallel else launch.tensor_parallel * launch.data_parallel
    up = -(-sizes.moe_intermediate // ranks)
    packed = scheme is not None and scheme.bits < 8
    if packed or not era.lasting_workspace:
        width = max(2 * up, sizes.hidden) + up
    else:
        width = max(up, sizes.hidden) + max(2 * up, sizes.hidden)
    chunk = tokens if launch.version >= (0, 18, 0) else min(tokens, 32768 if launch.version < (0, 12, 0) else 16384)
    return chunk * sizes.experts_per_token * width * resolved.element_bytes


def _keeps_workspace(model: Model) -> bool:
    """Whether the experts' kernels leave their caches with the workspace manager: those of 8 bits and more do."""
    scheme = model.quantization.experts
    return scheme is None or scheme.bits >= 8


def _attending(sizes: Dimensions, resolved: Resolved, tokens: int, sparse: SparseWorkspace) -> int:
    """Latent attention unpacks a workspace of cached tokens into heads: `tokens · heads ÷ ranks · (nope + value)`.
    Sparse attention holds what its indexer scores before that, beside the residuals and the queries."""
    launch, element = resolved.launch, resolved.element_bytes
    heads = -(-sizes.heads // launch.tensor_parallel)
    indexing = sparse.passing_bytes
    if indexing:
        indexing += tokens * element * (2 * sizes.hidden + heads * sizes.head_dim)
    if not sizes.latent or launch.v0 or launch.version < (0, 11, 0):
        return indexing
    cached = max(8 * resolved.model_len, 4 * resolved.defaults.max_num_seqs * resolved.defaults.block_size)
    unpacked = min(cached, 65536) * heads * sizes.latent_width + 2 * tokens * sizes.hidden
    return max(indexing, element * unpacked)


def _speech(sizes: Dimensions, sequences: int, element: int) -> int:
    """The encoder of every sequence at once, with its two feed-forward products."""
    row = sequences * sizes.encoder_positions * element
    return round(row * (2 * sizes.encoder_intermediate + 3.4 * sizes.encoder_hidden))


def _images(sizes: Dimensions, resolved: Resolved, sequences: int, tokens: int) -> int:
    """Images of the profiling run: as many as fill the encoder's budget; in V0 those of as many prompts as fit."""
    tower, launch = sizes.tower, resolved.launch
    if tower is None or launch.images_per_prompt == 0 or launch.language_only:
        return 0
    item = tower.item_tokens or tokens
    if not launch.v0:
        return max(1, tokens // item)
    each = launch.images_per_prompt or 1
    return each * max(1, min(sequences, tokens // (each * item)))


def _seeing(sizes: Dimensions, resolved: Resolved, sequences: int, tokens: int) -> int:
    """The encoder over all images of the run at once: `patches · element · (2 · feed-forward + 4 · hidden)`."""
    tower, element = sizes.tower, resolved.element_bytes
    count = _images(sizes, resolved, sequences, tokens)
    if tower is None or not count:
        return 0
    patches = count * (tower.item_tokens or tokens) * tower.patches_per_token
    width = 2 * (tower.intermediate or 4 * tower.hidden) + 4 * tower.hidden
    text = tokens * sizes.hidden * element if resolved.launch.v0 else 0
    return patches * element * width + text


def _encoders(sizes: Dimensions, launch: Launch, tokens: int, element: int) -> int:
    """Outputs of as many images as fill the encoder's budget, and their pixels."""
    tower = sizes.tower
    if tower is None or launch.images_per_prompt == 0 or launch.language_only or launch.v0:
        return 0
    item = tower.item_tokens or tokens
    budget = max(1, tokens // item) * item
    return budget * (sizes.hidden * element + tower.patch_bytes * tower.patches_per_token)
