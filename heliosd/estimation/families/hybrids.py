"""Models with layers other than attention: state spaces, linear attention, short convolutions, recurrences."""

from collections.abc import Mapping

from heliosd.estimation.families import linear_hybrids, mamba_hybrids, nemotron_h, recurrent, ring, sparse_hybrids, zaya
from heliosd.estimation.families.family import Family

FAMILIES: Mapping[str, Family] = {
    **mamba_hybrids.FAMILIES,
    **nemotron_h.FAMILIES,
    **linear_hybrids.FAMILIES,
    **recurrent.FAMILIES,
    **zaya.FAMILIES,
    **ring.FAMILIES,
    **sparse_hybrids.FAMILIES,
}
