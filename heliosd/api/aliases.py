"""/helios/v1/aliases: further names for models of this node's store."""

from aiohttp import web

from heliosd.api.asked import body_of, json_of, ref_of
from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Route, Scope
from heliosd.wire import AliasView, SetAlias


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
    ),
    Route(
        "DELETE",
        "/helios/v1/aliases/{alias:.+}",
        remove_alias,
        Scope.ADMIN,
        "Take an alias back; the model stays.",
        Answer("what it meant", AliasView),
        errors=("alias_not_found",),
    ),
)
