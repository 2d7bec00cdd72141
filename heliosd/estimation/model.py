"""A model as the estimator sees it: everything read from its configuration and headers once, then used many times."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from heliosd.errors import BadRequest
from heliosd.estimation.dimensions import Dimensions, dimensions
from heliosd.estimation.families.registry import layout_of
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Layout
from heliosd.estimation.quantization import Quantization, read_quantization


@dataclass(frozen=True, slots=True)
class Model:
    """Read from a `config.json`."""

    fields: Fields
    sizes: Dimensions
    layout: Layout | None
    """None for an architecture that no family describes."""
    quantization: Quantization
    dtype: str
    """Of what is not quantized, as the engine loads it: a float32 checkpoint becomes bfloat16."""
    notes: tuple[str, ...] = ()


def read_model(config: Mapping[str, Any], quantize: str | None = None) -> Model:
    """Read a configuration; `quantize` is what the operator asked of a plain checkpoint.

    Raises BadRequest, naming the field, for what is no configuration of a model or contradicts itself.
    """
    if not isinstance(config, Mapping) or not config:
        raise BadRequest("cannot read the configuration: it is empty or no mapping", code="bad_config")
    try:
        return _read(config, quantize)
    except RecursionError as error:
        raise BadRequest("cannot read the configuration: it is nested too deeply", code="bad_config") from error


def _read(config: Mapping[str, Any], quantize: str | None) -> Model:
    fields = Fields(_slim(config))
    notes: list[str] = []
    layout = layout_of(config)
    if layout is None:
        notes.append(f"no family of architectures is called {fields.model_type or 'nothing'!r}")
    return Model(
        fields=fields,
        sizes=dimensions(fields),
        layout=layout,
        quantization=_without_dense(read_quantization(config, quantize), layout),
        dtype=loaded_dtype(fields),
        notes=tuple(notes),
    )


def _without_dense(found: Quantization, layout: Layout | None) -> Quantization:
    """Vague 4-bit checkpoints of experts: the usual recipes leave attention and shared experts as they were."""
    scheme = found.linear
    if layout is None or not found.vague or scheme is None or scheme.bits != 4 or "compressed" not in found.name:
        return found
    routed = any(tensor.kind is Kind.EXPERT for block in layout.blocks for tensor in block.tensors)
    return replace(found, linear=None) if routed else found


_QUANTIZATION = ("quantization_config", "compression_config")


def _slim(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the lists of modules that a quantization names: they may be megabytes, and are not needed twice."""
    slim = dict(config)
    for name in _QUANTIZATION:
        found = config.get(name)
        if isinstance(found, Mapping):
            slim[name] = {
                key: value
                for key, value in found.items()
                if not isinstance(value, list | Mapping) or str(key).startswith("kv_")
            }
    return slim


def loaded_dtype(fields: Fields) -> str:
    """What `dtype=auto` comes to: the configuration's word; half of it for float32."""
    for part in (fields.language(), fields):
        value = part.get("dtype", "torch_dtype")
        if isinstance(value, str) and value not in ("", "auto"):
            name = value.removeprefix("torch.")
            return "bfloat16" if name in ("float32", "float", "float64") else name
    return "bfloat16"
