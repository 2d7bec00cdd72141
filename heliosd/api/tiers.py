"""/helios/v1/tiers: where models are kept, what is to be moved and why, and where an operator wants them."""

from aiohttp import web

from heliosd.api.asked import body_of, json_of, ref_of
from heliosd.api.known import stored_model
from heliosd.api.parts import Parts, TheTiers
from heliosd.api.plans import plan_of, write_step
from heliosd.api.routes import Answer, Route, Scope
from heliosd.core.retention import ELSEWHERE, Move, Tier
from heliosd.core.units import format_bytes
from heliosd.errors import NotFound
from heliosd.wire import ChangePlan, MoveModel, TierList, TierMoveView, TierPlanView, TierView, TierWishView


async def list_tiers(request: web.Request, parts: Parts) -> web.StreamResponse:
    tiers = _tiers(parts)
    views = [
        TierView(
            tier=each.tier,
            budget_bytes=each.budget_bytes,
            used_bytes=each.used_bytes,
            models=list(each.models),
            note=each.note,
            bytes_per_s=each.bytes_per_s,
        )
        for each in await tiers.status()
    ]
    wishes = [TierWishView(model=model, tier=tier) for model, tier in (await tiers.wishes()).items()]
    moving = tiers.moving
    words = f"{moving.piece.name} from {moving.source} to {moving.target}" if moving else None
    return json_of(TierList(tiers=views, wishes=wishes, moving=words))


async def plan_tiers(request: web.Request, parts: Parts) -> web.StreamResponse:
    planned = await _tiers(parts).plan()
    return json_of(TierPlanView(moves=[_move_view(move) for move in planned.moves], unmet=list(planned.unmet)))


async def move(request: web.Request, parts: Parts) -> web.StreamResponse:
    ref = ref_of(request.match_info["model"])
    asked = await body_of(request, MoveModel)
    tier = None if asked.tier == "auto" else Tier(asked.tier)
    model = await _tiers(parts).wish(ref, tier)
    if tier not in ELSEWHERE:  # what was let go has its own line
        words = f"{model} is wanted in {tier}" if tier else f"{model} may be in any tier again"
        parts.journal.note("tier", words, model=model)
    return json_of(TierWishView(model=model, tier=tier))


def _tiers(parts: Parts) -> TheTiers:
    if parts.tiers is None:
        raise NotFound("cannot tell of tiers: this node moves no models")
    return parts.tiers


def _move_view(move: Move) -> TierMoveView:
    return TierMoveView(
        models=list(move.piece.models),
        source=move.source,
        target=move.target,
        size_bytes=move.piece.n_bytes,
        seconds=move.seconds,
        reason=move.reason,
    )


async def move_plan(request: web.Request, parts: Parts) -> ChangePlan:
    model, asked = request.match_info["model"], await body_of(request, MoveModel)
    tiers, stored = _tiers(parts), await stored_model(parts, model)
    size_bytes, now = sum(file.size_bytes for file in stored.manifest.files), tiers.tier_of(stored.manifest)
    if asked.tier == "auto":
        return plan_of(f"{stored.ref} might be in any tier again", [write_step(str(stored.ref), f"it is in {now} now")])
    tier = Tier(asked.tier)
    if tier in ELSEWHERE:
        why = f"it is in {now} now; only if nobody uses it and {tier}, asked right before, has every file of it"
        step = write_step(str(stored.ref), why, what="let go", frees_bytes=size_bytes)
        return plan_of(f"{stored.ref} would be removed here and stay in the list", [step])
    why = f"it is in {now} now; {format_bytes(size_bytes)} are moved as soon as nobody uses it and there is room"
    return plan_of(f"{stored.ref} would be wanted in {tier}", [write_step(str(stored.ref), why, what="move")])


ROUTES = (
    Route(
        "GET",
        "/helios/v1/tiers",
        list_tiers,
        Scope.ADMIN,
        "The tiers of this node: what each may hold, holds, and for which models.",
        Answer("tiers and wishes", TierList),
    ),
    Route(
        "GET",
        "/helios/v1/tiers/plan",
        plan_tiers,
        Scope.ADMIN,
        "What would be moved now, with sizes, seconds and reasons. Moves nothing.",
        Answer("the plan", TierPlanView),
    ),
    Route(
        "PUT",
        "/helios/v1/tiers/models/{model:.+}",
        move,
        Scope.ADMIN,
        "Want a model in a tier, or leave it to the forecast again.",
        Answer("the wish", TierWishView),
        body=MoveModel,
        detail="It is moved as soon as nobody uses it and there is room. The wish outlives a restart. `peer` and `hub` "
        "are no wish: the weights are removed here now, if nobody uses them and another node or the hub, asked right "
        "before, has every file of them; the model stays in the list and is fetched again when it is asked for.",
        errors=("model_not_found", "model_in_use", "not_elsewhere"),
        preview=move_plan,
    ),
)
