"""/helios/v1/config and /helios/v1/log: the configuration as it is, read again, and what is logged."""

import logging

from aiohttp import web

from heliosd.api.asked import body_of, json_of
from heliosd.api.parts import Parts, Reloading
from heliosd.api.plans import plan_of, write_step
from heliosd.api.routes import Answer, Route, Scope
from heliosd.errors import NotFound
from heliosd.logs import level_now, set_level
from heliosd.wire import ChangePlan, LogLevel, LogLevelView, ReloadedView

log = logging.getLogger("heliosd.api")


async def show(request: web.Request, parts: Parts) -> web.StreamResponse:
    return web.Response(text=_reloading(parts).shown, content_type="text/plain")


async def reload(request: web.Request, parts: Parts) -> web.StreamResponse:
    changed, later = await _reloading(parts).reload()
    words = f"changed: {', '.join(changed) or 'nothing'}; needs a restart: {', '.join(later) or 'nothing'}"
    parts.journal.note("config", f"the configuration was read again; {words}")
    return json_of(ReloadedView(changed=list(changed), needs_restart=list(later)))


async def reload_plan(request: web.Request, parts: Parts) -> ChangePlan:
    changed, later = await _reloading(parts).difference()
    steps = [write_step(key, "takes effect at once", what="set") for key in changed]
    steps += [write_step(key, "waits for a restart of heliosd", what="keep") for key in later]
    return plan_of(f"{len(changed)} settings would change, {len(later)} wait for a restart", steps)


async def show_level(request: web.Request, parts: Parts) -> web.StreamResponse:
    return json_of(LogLevelView(level=level_now(), before=level_now()))


async def change_level(request: web.Request, parts: Parts) -> web.StreamResponse:
    asked, before = await body_of(request, LogLevel), level_now()
    set_level(asked.level)
    log.log(logging.INFO, "log level changed", extra={"level": asked.level, "before": before})
    return json_of(LogLevelView(level=level_now(), before=before))


async def level_plan(request: web.Request, parts: Parts) -> ChangePlan:
    asked = await body_of(request, LogLevel)
    why = f"it is {level_now()} now; log.level of the configuration holds again after a reload or a restart"
    return plan_of(f"{asked.level} and above would be logged", [write_step("log.level", why, what="set")])


def _reloading(parts: Parts) -> Reloading:
    if parts.reloading is None:
        raise NotFound("cannot tell of the configuration: this node was given none to read again")
    return parts.reloading


ROUTES = (
    Route(
        "GET",
        "/helios/v1/config",
        show,
        Scope.ADMIN,
        "The whole configuration, explained; secrets are left out.",
        Answer("TOML", media="text/plain"),
    ),
    Route(
        "POST",
        "/helios/v1/config/reload",
        reload,
        Scope.ADMIN,
        "Read the configuration again, as SIGHUP does; one that is wrong changes nothing.",
        Answer("what took effect, and what waits for a restart", ReloadedView),
        errors=("configuration_rejected",),
        preview=reload_plan,
    ),
    Route(
        "GET",
        "/helios/v1/log",
        show_level,
        Scope.ADMIN,
        "What the daemon logs.",
        Answer("the level", LogLevelView),
    ),
    Route(
        "PUT",
        "/helios/v1/log",
        change_level,
        Scope.ADMIN,
        "Log more or less, until the configuration is read again.",
        Answer("the level now and before", LogLevelView),
        body=LogLevel,
        preview=level_plan,
    ),
)
