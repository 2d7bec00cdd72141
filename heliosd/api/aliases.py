"""/helios/v1/aliases: further names for models of this node's store."""

from aiohttp import web

from heliosd.api.asked import body_of, json_of, ref_of
from heliosd.api.known import stored_model
from heliosd.api.parts import Parts
from heliosd.api.plans import plan_of, write_step
from heliosd.api.routes import Answer, Route, Scope
from heliosd.errors import Conflict, NotFound
from heliosd.store.stored import checked_alias
from heliosd.wire import AliasView, ChangePlan, SetAlias


async def set_alias(request: web.Request, parts: Parts) -> web.StreamResponse:
    alias = request.match_info["alias"]
    asked = await body_of(request, SetAlias)
    ref = await parts.store.set_alias(alias, ref_of(asked.ref))
    parts.journal.note("model", f"{alias} means {ref} from now on", model=str(ref))
    return json_of(AliasView(alias=alias, ref=str(ref)))


async def remove_alias(request: web.Request, parts: Parts) -> web.StreamResponse:
    alias = request.match_info["alias"]
    ref = await parts.store.remove_alias(alias)
    parts.journal.note("model", f"{alias} no longer means {ref}", model=str(ref))
    return json_of(AliasView(alias=alias, ref=str(ref)))


async def set_alias_plan(request: web.Request, parts: Parts) -> ChangePlan:
    alias = request.match_info["alias"]
    asked = await body_of(request, SetAlias)
    stored = await stored_model(parts, asked.ref)
    before = await parts.store.by_name(checked_alias(alias))
    if before is not None and alias not in before.aliases:
        raise Conflict(f"cannot use {alias} as an alias: a model of that name is in the store")
    was = f"it means {before.ref} now" if before else "it means nothing now"
    return plan_of(f"{alias} would mean {stored.ref}", [write_step(alias, f"{was}; requests may use it at once")])


async def remove_alias_plan(request: web.Request, parts: Parts) -> ChangePlan:
    alias = request.match_info["alias"]
    stored = await parts.store.by_name(alias)
    if stored is None or alias not in stored.aliases:
        raise NotFound(f"cannot remove the alias {alias}: no model has it", code="alias_not_found")
    why = f"it means {stored.ref}; who asks for it is refused from then on, and the model stays"
    return plan_of(f"{alias} would mean nothing", [write_step(alias, why, what="remove")])


ROUTES = (
    Route(
        "PUT",
        "/helios/v1/aliases/{alias:.+}",
        set_alias,
        Scope.ADMIN,
        "Let a name mean a model of the store.",
        Answer("what it means now", AliasView),
        body=SetAlias,
        detail="Requests may use it at once, also while the model runs. An alias that exists moves.",
        errors=("model_not_found", "conflict"),
        preview=set_alias_plan,
    ),
    Route(
        "DELETE",
        "/helios/v1/aliases/{alias:.+}",
        remove_alias,
        Scope.ADMIN,
        "Take an alias back; the model stays.",
        Answer("what it meant", AliasView),
        errors=("alias_not_found",),
        preview=remove_alias_plan,
    ),
)
