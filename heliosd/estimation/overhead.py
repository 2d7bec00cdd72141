"""What an engine holds besides weights and KV cache: activation peak, graphs, context, its own process.

The activation law is the sampler's: sorting the logits of `max_num_seqs` sequences over the vocabulary, plus the
widest layer over `max_num_batched_tokens`; constants as vLLM 0.19 and later print them (3.62 and 1.2, within 3 % on 20
text models). The fixed parts are first guesses that measurements on this machine replace.
"""

from heliosd.core.hardware import DeviceKind
from heliosd.core.profile import ModelProfile
from heliosd.core.units import GiB, MiB

SAMPLER_FACTOR = 3.62
LAYER_FACTOR = 1.2
BATCHED_TOKENS = {DeviceKind.HOST: 2048}
DEFAULT_BATCHED_TOKENS = 8192

# An engine process on the CPU, forked from the zygote: its own heap, thread stacks and buffers, and half of the pages
# that it shares with the zygote, which is what the first engine is charged. Measured with SmolLM2 on two cores:
# 445 MiB when ready, 473 MiB after a request of 1000 tokens.
HOST_FIXED_BYTES = 480 * MiB
# CUDA context and libraries, and graphs of 51 capture sizes.
CUDA_FIXED_BYTES = int(0.6 * GiB)
CUDA_GRAPHS_BYTES = int(1.2 * GiB)
# NCCL, custom all-reduce and symmetric memory, as soon as there is more than one rank.
CUDA_COLLECTIVES_BYTES = 2 * GiB

UNKNOWN_VOCABULARY = 152_064
UNKNOWN_HIDDEN = 8192


def activation_bytes(profile: ModelProfile, max_num_seqs: int, kind: DeviceKind) -> int:
    """Peak of the profiling run: `3.62 · seqs · vocab · 4 + 1.2 · batched tokens · hidden · 2`."""
    sampler = SAMPLER_FACTOR * max_num_seqs * (profile.vocab_size or UNKNOWN_VOCABULARY) * 4
    batched = BATCHED_TOKENS.get(kind, DEFAULT_BATCHED_TOKENS)
    return int(sampler + LAYER_FACTOR * batched * (profile.hidden_size or UNKNOWN_HIDDEN) * 2)


def overhead_bytes(profile: ModelProfile, max_num_seqs: int, kind: DeviceKind, tensor_parallel: int) -> int:
    """First guess for one device, before anything was measured here."""
    activation = activation_bytes(profile, max_num_seqs, kind)
    if kind is DeviceKind.HOST:
        return HOST_FIXED_BYTES + activation
    collectives = CUDA_COLLECTIVES_BYTES if tensor_parallel > 1 else 0
    return CUDA_FIXED_BYTES + CUDA_GRAPHS_BYTES + collectives + activation
