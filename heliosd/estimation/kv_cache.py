"""How many bytes a token's keys and values take, and how many tokens some bytes hold."""

from heliosd.core.hardware import DeviceKind
from heliosd.core.profile import ModelProfile

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float": 4, "half": 2}

# Tokens per block as vLLM 0.32 chooses them: 16 on GPUs, 128 on the CPU.
BLOCK_TOKENS = {DeviceKind.HOST: 128}
DEFAULT_BLOCK_TOKENS = 16

# Encoders read a whole text at once and keep nothing between steps.
ENCODER_ONLY = ("Bert", "Roberta", "ModernBert", "GteModel", "NomicBert", "ViT", "Siglip")


def dtype_bytes(dtype: str | None) -> int:
    """Bytes of one element in the engine; 2 when unknown, as vLLM then uses half precision."""
    return DTYPE_BYTES.get(dtype or "", 2)


def keeps_nothing(profile: ModelProfile) -> bool:
    """Whether the model is an encoder without a KV cache."""
    return any(name in (profile.architecture or "") for name in ENCODER_ONLY)


def bytes_per_token(profile: ModelProfile, dtype: str | None, tensor_parallel: int) -> int | None:
    """`2 · layers · kv_heads per rank · head_dim · bytes`, for full attention in every layer.

    KV heads are replicated when there are fewer of them than ranks. None when the configuration does not say enough;
    0 for an encoder.
    """
    if keeps_nothing(profile):
        return 0
    if not (profile.layers and profile.kv_heads and profile.head_dim):
        return None
    heads = max(1, profile.kv_heads // tensor_parallel)
    return 2 * profile.layers * heads * profile.head_dim * dtype_bytes(dtype)


def block_tokens(kind: DeviceKind) -> int:
    return BLOCK_TOKENS.get(kind, DEFAULT_BLOCK_TOKENS)


def tokens_in(n_bytes: int, per_token: int, block: int) -> int:
    """Tokens that fit, in whole blocks; one block is the engine's own."""
    return max(0, n_bytes // (per_token * block) - 1) * block


def bytes_for(tokens: int, per_token: int, block: int) -> int:
    """Bytes that hold at least `tokens`, the engine's own block included."""
    return (-(-tokens // block) + 1) * block * per_token
