"""All decoders built of attention and feed-forward parts only, by `model_type`."""

from collections.abc import Mapping

from heliosd.estimation.families import (
    classic,
    deepseek_v4,
    dense,
    gemma,
    latent,
    remote,
    sparse,
    text_parts,
    uneven,
    unusual,
)
from heliosd.estimation.families.family import Family

FAMILIES: Mapping[str, Family] = {
    **dense.FAMILIES,
    **sparse.FAMILIES,
    **uneven.FAMILIES,
    **latent.FAMILIES,
    **deepseek_v4.FAMILIES,
    **gemma.FAMILIES,
    **classic.FAMILIES,
    **text_parts.FAMILIES,
    **unusual.FAMILIES,
    **remote.FAMILIES,
}
