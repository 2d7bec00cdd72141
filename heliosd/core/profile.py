"""Facts about one revision that memory, placement and the API need to know. No estimate, no opinion."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """Read from `config.json` and the safetensors headers; None where they do not say."""

    architecture: str | None
    weights_bytes: int
    """Sum of all tensors as stored, exact."""
    parameters: int | None
    """Number of stored elements; for packed quantized layouts the packed ones."""
    dtype: str | None
    """What the configuration names, else the dtype that holds most bytes: `bfloat16`, `float32`, …"""
    layers: int | None
    kv_heads: int | None
    head_dim: int | None
    hidden_size: int | None
    vocab_size: int | None
    max_model_len: int | None
    remote_code: bool = False
    """The configuration wants code that comes with the model (`auto_map`)."""
    pickled: bool = False
    """Weights are (also) pickles."""
    mould: str = ""
    """Revisions with an equal one can take each other's place in a running engine; empty: it can take nobody's."""
