"""Which blobs are worth a place in which tier, and the moves that lead there. Values in, values out.

A piece is worth, where it is kept, the probability that it is read within the horizon, times the seconds that reading
it there saves over reading it from the next slower tier; what is worth most for its bytes goes first. What is in use
stays where it is. Who has a place keeps it against anybody who is not clearly worth more, and who is hardly ever read
is not moved up at all: so nothing goes to and fro.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import prod

from heliosd.core.names import Digest
from heliosd.core.units import GiB, MiB, format_bytes

HORIZON_S = 600.0
"""How far ahead a load counts: on the traces of `tests/bench/retention.py` better than a minute or an hour."""
KEEPS = 1.5
"""So many times its worth for its bytes must a newcomer have to take somebody's place."""
WORTH = 0.1
"""A piece moves up when it is expected to save at least this share of the seconds that the move takes."""


class Tier(StrEnum):
    """Where blobs are, fastest first."""

    HOST = "host"
    """In RAM, beside their place on a disk."""
    NVME = "nvme"
    """The store itself."""
    DISK = "disk"
    """A slower volume."""
    PEER = "peer"
    """Not here any more: another node has it."""
    HUB = "hub"
    """Nor at a node: the hub has it."""


ELSEWHERE = (Tier.PEER, Tier.HUB)
"""Nothing moves there by a plan: what somebody else has may be let go, and is fetched again when it is asked for."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Of reading from a tier."""

    first_s: float
    bytes_per_s: float

    def read_s(self, n_bytes: int) -> float:
        return self.first_s + n_bytes / self.bytes_per_s


SPEEDS: Mapping[Tier, Speed] = {
    Tier.HOST: Speed(0.0, 16 * GiB),
    Tier.NVME: Speed(0.001, 2 * GiB),
    Tier.DISK: Speed(0.05, 200 * MiB),
    Tier.PEER: Speed(0.1, 500 * MiB),
    Tier.HUB: Speed(1.0, 50 * MiB),
}
"""Until moves have been timed."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A model of the store."""

    model: str
    blobs: tuple[tuple[Digest, int], ...]
    """Each with its bytes."""
    chance: float
    """Of being loaded within the horizon."""
    wish: Tier | None = None
    """Where an operator wants it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Blobs that are needed by the same models and are in the same place: they move together."""

    models: tuple[str, ...]
    digests: frozenset[Digest]
    n_bytes: int
    chance: float
    at: Tier
    """NVME or DISK."""
    staged: bool = False
    """In RAM as well."""
    held: bool = False
    """In use: it is not moved."""
    wish: Tier | None = None

    @property
    def name(self) -> str:
        return self.models[0] if len(self.models) == 1 else f"{self.models[0]} and {len(self.models) - 1} more"


@dataclass(frozen=True, slots=True)
class Move:
    """One piece's way from a tier to another. From HOST: it is let go there."""

    piece: Piece
    source: Tier
    target: Tier
    seconds: float
    """What it is expected to take."""
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    moves: tuple[Move, ...]
    """In this order: what makes room first."""
    unmet: tuple[str, ...] = ()
    """What cannot be done, a sentence each."""


def pieces(
    models: Iterable[Kept], on_disk: Collection[Digest], staged: Collection[Digest], held: Collection[Digest]
) -> tuple[Piece, ...]:
    """Group the blobs of all models. What several models need is one piece, as likely to be read as any of them."""
    users: dict[Digest, list[Kept]] = defaultdict(list)
    sizes: dict[Digest, int] = {}
    for each in models:
        for digest, n_bytes in dict(each.blobs).items():
            users[digest].append(each)
            sizes[digest] = n_bytes
    groups: dict[tuple[tuple[str, ...], Tier, bool, bool], list[Digest]] = defaultdict(list)
    for digest, by in users.items():
        names = tuple(sorted(each.model for each in by))
        at = Tier.DISK if digest in on_disk else Tier.NVME
        groups[names, at, digest in staged, digest in held].append(digest)
    return tuple(
        Piece(
            names,
            frozenset(digests),
            sum(sizes[digest] for digest in digests),
            1 - prod(1 - each.chance for each in users[digests[0]]),
            at,
            in_ram,
            in_use,
            _wish([each.wish for each in users[digests[0]]]),
        )
        for (names, at, in_ram, in_use), digests in groups.items()
    )


def _wish(wishes: Collection[Tier | None]) -> Tier | None:
    """Of all models that need a piece: the fastest, and the disk only if all of them may be there."""
    fastest = next((tier for tier in Tier if tier in wishes), None)
    return None if fastest is Tier.DISK and None in wishes else fastest


def saved_s(piece: Piece, tier: Tier, speeds: Mapping[Tier, Speed]) -> float:
    """Seconds that reading the piece from `tier` saves over where it would be read from otherwise."""
    slower = piece.at if tier is Tier.HOST else Tier.DISK
    return max(0.0, speeds[slower].read_s(piece.n_bytes) - speeds[tier].read_s(piece.n_bytes))


def worth(piece: Piece, tier: Tier, speeds: Mapping[Tier, Speed]) -> float:
    """Expected seconds saved within the horizon for each byte that the piece takes there."""
    return piece.chance * saved_s(piece, tier, speeds) / max(1, piece.n_bytes)


def plan(
    budgets: Mapping[Tier, int],
    found: Sequence[Piece],
    speeds: Mapping[Tier, Speed] = SPEEDS,
    *,
    room_for_bytes: int = 0,
) -> Plan:
    """What to move. `budgets`: bytes that each tier may hold; a tier that is not there has none.

    With `room_for_bytes` as much of the store is kept free for something that is about to come, and nothing moves up.
    """
    between, unmet = _between(budgets, found, speeds, room_for_bytes)
    staged, denied = _staged(budgets.get(Tier.HOST, 0), found, speeds) if not room_for_bytes else ([], [])
    return Plan((*between, *staged), (*unmet, *denied))


def _between(
    budgets: Mapping[Tier, int], found: Sequence[Piece], speeds: Mapping[Tier, Speed], room_for_bytes: int
) -> tuple[list[Move], list[str]]:
    """Moves between the store and the slower volume."""
    if Tier.DISK not in budgets:
        return [], [
            f"{each.name} cannot go to disk: there is no store.disk_dir" for each in found if each.wish is Tier.DISK
        ]
    limit = budgets[Tier.NVME] - room_for_bytes
    used = sum(each.n_bytes for each in found if each.at is Tier.NVME)
    disk_left = budgets[Tier.DISK] - sum(each.n_bytes for each in found if each.at is Tier.DISK)
    stays = [each for each in found if each.at is Tier.NVME and each.held]
    taken = sum(each.n_bytes for each in stays)
    chosen = set(map(id, stays))
    ranked = sorted(
        (each for each in found if id(each) not in chosen and _may_be_up(each, speeds, room_for_bytes)),
        key=lambda each: (each.wish in (Tier.NVME, Tier.HOST), _claim(each, Tier.NVME, speeds), each.models),
        reverse=True,
    )
    for each in ranked:
        if taken + each.n_bytes <= limit:
            taken += each.n_bytes
            chosen.add(id(each))
    up = [each for each in ranked if id(each) in chosen and each.at is Tier.DISK]
    down = [each for each in found if each.at is Tier.NVME and id(each) not in chosen]
    missing = used + sum(each.n_bytes for each in up) - limit
    moves, unmet = list[Move](), list[str]()
    for each in sorted(down, key=lambda each: (each.wish is not Tier.DISK, worth(each, Tier.NVME, speeds))):
        if each.wish is not Tier.DISK and missing <= 0:
            continue
        if each.n_bytes > disk_left:
            unmet.append(
                f"{each.name} cannot go to disk: it has {format_bytes(each.n_bytes)} and the disk has "
                f"{format_bytes(max(0, disk_left))} of its {format_bytes(budgets[Tier.DISK])} left; "
                "raise store.disk_budget or remove models"
            )
            continue
        disk_left -= each.n_bytes
        missing -= each.n_bytes
        moves.append(Move(each, Tier.NVME, Tier.DISK, speeds[Tier.DISK].read_s(each.n_bytes), _why_down(each, limit)))
    free = limit - used + sum(move.piece.n_bytes for move in moves)
    for each in up:
        if each.n_bytes <= free:
            free -= each.n_bytes
            seconds = speeds[Tier.DISK].read_s(each.n_bytes)
            moves.append(Move(each, Tier.DISK, Tier.NVME, seconds, _why_up(each, Tier.NVME, speeds)))
    return moves, unmet


def _may_be_up(piece: Piece, speeds: Mapping[Tier, Speed], room_for_bytes: int) -> bool:
    """Whether the store is a place for it: not against a wish, and from the disk only when that pays."""
    if piece.wish is Tier.DISK:
        return False
    if piece.at is Tier.NVME:
        return True
    if piece.held or room_for_bytes:
        return False
    return piece.wish is Tier.NVME or _pays(piece, Tier.NVME, speeds)


def _staged(budget: int, found: Sequence[Piece], speeds: Mapping[Tier, Speed]) -> tuple[list[Move], list[str]]:
    """What comes into RAM, and what leaves it. What engines use is in RAM already, for as long as they run."""
    ranked = sorted(
        (
            each
            for each in found
            if each.wish in (None, Tier.HOST)
            and (each.staged or (not each.held and (each.wish is not None or _pays(each, Tier.HOST, speeds))))
        ),
        key=lambda each: (
            each.staged and each.held,
            each.wish is Tier.HOST,
            _claim(each, Tier.HOST, speeds),
            each.models,
        ),
        reverse=True,
    )
    taken, chosen, unmet = 0, list[Piece](), list[str]()
    for each in ranked:
        if taken + each.n_bytes <= budget:
            taken += each.n_bytes
            chosen.append(each)
        elif each.wish is Tier.HOST:
            unmet.append(
                f"{each.name} cannot stay in host memory: it has {format_bytes(each.n_bytes)} and "
                f"{format_bytes(max(0, budget - taken))} of {format_bytes(max(0, budget))} are left; "
                "raise store.host_memory, or let fewer models sleep"
            )
    kept = set(map(id, chosen))
    moves = [
        Move(each, Tier.HOST, each.at, 0.0, f"others are worth more of the {format_bytes(max(0, budget))} of RAM")
        for each in found
        if each.staged and id(each) not in kept
    ]
    moves += [
        Move(each, each.at, Tier.HOST, speeds[each.at].read_s(each.n_bytes), _why_up(each, Tier.HOST, speeds))
        for each in chosen
        if not each.staged
    ]
    return moves, unmet


def _pays(piece: Piece, tier: Tier, speeds: Mapping[Tier, Speed]) -> bool:
    return piece.chance * saved_s(piece, tier, speeds) >= WORTH * speeds[piece.at].read_s(piece.n_bytes)


def _claim(piece: Piece, tier: Tier, speeds: Mapping[Tier, Speed]) -> float:
    """Its worth for its bytes, more if it has the place already."""
    has = piece.staged if tier is Tier.HOST else piece.at is tier
    return worth(piece, tier, speeds) * (KEEPS if has else 1.0)


def _why_down(piece: Piece, limit_bytes: int) -> str:
    if piece.wish is Tier.DISK:
        return "an operator wants it there"
    return (
        f"likely by {piece.chance:.0%} to be loaded within ten minutes, it is worth least of the "
        f"{format_bytes(max(0, limit_bytes))} that the store may hold"
    )


def _why_up(piece: Piece, tier: Tier, speeds: Mapping[Tier, Speed]) -> str:
    if piece.wish is tier or (piece.wish is Tier.HOST and tier is Tier.NVME):
        return "an operator wants it there"
    sooner_s = saved_s(piece, tier, speeds)
    return f"likely by {piece.chance:.0%} to be loaded within ten minutes, it loads {sooner_s:.1f} s sooner from there"
