"""The exact optimum of a packing, by mixed integer programming (HiGHS), to score ours against."""

from collections.abc import Sequence

import highspy

from heliosd.core.packing import Item, Room
from heliosd.core.units import GiB


def optimum(items: Sequence[Item], rooms: Sequence[Room], limit_s: float) -> tuple[float, bool]:
    """(the most worth that can be placed, whether that was proven within the limit); unproven: an upper bound."""
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("time_limit", limit_s)
    solver.setOptionValue("mip_rel_gap", 1e-6)
    placed = [solver.addBinary() for _ in items]
    there = [[solver.addBinary() for _ in rooms] for _ in items]
    for item, whole, row in zip(items, placed, there, strict=True):
        solver.addConstr(sum(row) == item.device_count * whole)
    for at, room in enumerate(rooms):
        taken = sum(item.sizes[room.kind] / GiB * row[at] for item, row in zip(items, there, strict=True))
        solver.addConstr(taken <= room.free_bytes / GiB)
    solver.maximize(sum(item.worth * whole for item, whole in zip(items, placed, strict=True)))
    found = solver.getInfo()
    proven = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return (found.objective_function_value if proven else found.mip_dual_bound), proven
