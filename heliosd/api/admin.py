"""/helios/v1: the node itself, its devices, its keys, its cluster, and the doctor."""

import asyncio

from aiohttp import web

from heliosd.api.asked import body_of, json_of
from heliosd.api.now import devices_of, node_now
from heliosd.api.parts import Check, Parts
from heliosd.api.plans import plan_of, write_step
from heliosd.api.routes import Answer, Route, Scope
from heliosd.api.views import member_view, priority_word, space_view
from heliosd.cluster.member import MemberState
from heliosd.core.budgets import Budget
from heliosd.core.messages import Priority
from heliosd.core.metering import IDLE
from heliosd.core.units import format_bytes
from heliosd.errors import BadRequest, Conflict, HeliosError, NotFound
from heliosd.state.keys import Key
from heliosd.wire import (
    AddKey,
    ChangeKey,
    ChangePlan,
    CheckList,
    CheckView,
    DeviceList,
    KeyList,
    KeyView,
    MemberList,
    NodeView,
    SpeedView,
    StorageView,
)

_CHECK_S = 20.0


async def node(request: web.Request, parts: Parts) -> web.StreamResponse:
    return json_of(node_now(parts, parts.node.snapshot()))


async def devices(request: web.Request, parts: Parts) -> web.StreamResponse:
    snapshot = parts.node.snapshot()
    return json_of(DeviceList(devices=devices_of(snapshot), spaces=[space_view(*each) for each in snapshot.spaces]))


async def cluster(request: web.Request, parts: Parts) -> web.StreamResponse:
    own = [name for model in await parts.store.models() for name in (str(model.ref), *model.aliases)]
    holds = parts.peers.holds
    members = parts.peers.members()
    return json_of(
        MemberList(
            members=[
                member_view(member, own if member.state is MemberState.SELF else holds.get(member.name, ()))
                for member in members
            ]
        )
    )


async def doctor(request: web.Request, parts: Parts) -> web.StreamResponse:
    return json_of(CheckList(checks=await findings(parts)))


async def findings(parts: Parts) -> list[CheckView]:
    """All checks at once; one that fails or hangs is a finding, not an error of the request."""
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_look(check)) for check in parts.checks]
    found = [each for task in asked for each in task.result()]
    found += [CheckView(name="warning", ok=False, message=text) for text in parts.warnings()]
    return found


async def doctor_storage(request: web.Request, parts: Parts) -> web.StreamResponse:
    """Measure, which takes as long as reading a large file a dozen times."""
    found = await parts.measure_storage()
    speeds = [
        SpeedView(
            method=speed.method,
            cold_bytes_per_s=speed.cold_bytes_per_s,
            warm_bytes_per_s=speed.warm_bytes_per_s,
            note=speed.note,
        )
        for speed in found.speeds
    ]
    told = ", ".join(f"{each.method} {format_bytes(int(each.cold_bytes_per_s or 0))}/s" for each in found.speeds)
    parts.journal.note("storage", f"measured with {found.file}, cold: {told}; engines load with {found.load_format}")
    return json_of(
        StorageView(file=found.file, size_bytes=found.size_bytes, speeds=speeds, load_format=found.load_format)
    )


async def _look(check: Check) -> list[CheckView]:
    name = getattr(check, "__name__", "check").strip("_").replace("_", " ")
    try:
        async with asyncio.timeout(_CHECK_S):
            return list(await check())
    except TimeoutError:
        return [CheckView(name=name, ok=False, message=f"no answer within {_CHECK_S:.0f} s")]
    except HeliosError as error:
        return [CheckView(name=name, ok=False, message=error.message, advice=error.cause)]


async def list_keys(request: web.Request, parts: Parts) -> web.StreamResponse:
    return json_of(KeyList(keys=[_key_view(key) for key in parts.keys.all()]))


async def add_key(request: web.Request, parts: Parts) -> web.StreamResponse:
    asked = await body_of(request, AddKey)
    if asked.name.startswith(IDLE[0]) or "/" in asked.name:
        raise BadRequest(
            f"cannot make a key named {asked.name!r}: names must not begin with {IDLE[0]!r} nor have a slash, as the "
            "accounts that belong to no key do; choose another name",
            param="name",
        )
    priority = Priority[asked.priority.upper()]
    budget = Budget(asked.budget, asked.budget_period, asked.tokens_per_day)
    key, secret = await parts.keys.add(
        asked.name, admin=asked.admin, priority=priority, share=asked.share, budget=budget
    )
    kind = "an admin" if key.admin else "a"
    parts.journal.note("key", f"{kind} key named {key.name} was made: {_terms(key)}")
    return json_of(_key_view(key, secret), status=201)


async def change_key(request: web.Request, parts: Parts) -> web.StreamResponse:
    asked = await body_of(request, ChangeKey)
    if not asked.model_dump(exclude_none=True):
        raise BadRequest(
            "cannot change the key: say what is to change, `priority`, `share`, `budget` or `tokens_per_day`",
            param="priority",
        )
    name = request.match_info["name"]
    priority = Priority[asked.priority.upper()] if asked.priority else None
    budget = _budget(parts.keys.named(name), asked)
    key = await parts.keys.change(name, priority=priority, share=asked.share, budget=budget)
    parts.journal.note("key", f"the key named {key.name} was changed: {_terms(key)}")
    return json_of(_key_view(key))


async def remove_key(request: web.Request, parts: Parts) -> web.StreamResponse:
    key = await parts.keys.remove(request.match_info["name"])
    parts.journal.note("key", f"the key named {key.name} was removed")
    return json_of(_key_view(key))


async def doctor_storage_plan(request: web.Request, parts: Parts) -> ChangePlan:
    why = "the largest file of the store is read about a dozen times, from the disk and from memory"
    return plan_of("the storage would be measured", [write_step("store", why, what="measure")])


async def add_key_plan(request: web.Request, parts: Parts) -> ChangePlan:
    asked = await body_of(request, AddKey)
    if any(key.name == asked.name for key in parts.keys.all()):
        raise Conflict(f"cannot make a key named {asked.name!r}: there is one", code="key_exists")
    first = "" if parts.keys.all() else "; it is the first: inference over TCP needs a key from then on"
    why = f"{asked.priority} priority, {asked.share:g} of a fair share{', admin' if asked.admin else ''}{first}"
    return plan_of(f"a key named {asked.name} would be made", [write_step(asked.name, why, what="add")])


async def change_key_plan(request: web.Request, parts: Parts) -> ChangePlan:
    asked, key = await body_of(request, ChangeKey), _key(request, parts, "change")
    if asked.priority is None and asked.share is None:
        raise BadRequest("cannot change the key: say what is to change, `priority` or `share`", param="priority")
    now = f"{asked.priority or priority_word(key.priority)} priority, {asked.share or key.share:g} of a fair share"
    return plan_of(f"the key {key.name} would change", [write_step(key.name, f"{_terms(key)} now, {now} then")])


async def remove_key_plan(request: web.Request, parts: Parts) -> ChangePlan:
    key = _key(request, parts, "remove")
    why = "who uses it is refused from then on; what it is being served is finished"
    return plan_of(f"the key {key.name} would be removed", [write_step(key.name, why, what="remove")])


def _key(request: web.Request, parts: Parts, wish: str) -> Key:
    name = request.match_info["name"]
    key = next((each for each in parts.keys.all() if name in (each.name, each.id)), None)
    if key is None:
        raise NotFound(f"cannot {wish} the key {name!r}: it is not known", code="key_not_found")
    return key


def _key_view(key: Key, secret: str | None = None) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        admin=key.admin,
        created_at=key.created_at,
        priority=priority_word(key.priority),
        share=key.share,
        budget=key.budget.amount,
        budget_period=key.budget.period,
        tokens_per_day=key.budget.tokens_per_day,
        secret=secret,
    )


def _budget(key: Key | None, asked: ChangeKey) -> Budget | None:
    """None: it stays as it is, or nobody has it."""
    given = (asked.budget, asked.budget_period, asked.tokens_per_day)
    if key is None or given == (None, None, None):
        return None
    before = key.budget
    return Budget(
        before.amount if asked.budget is None else asked.budget,
        asked.budget_period or before.period,
        before.tokens_per_day if asked.tokens_per_day is None else asked.tokens_per_day,
    )


def _terms(key: Key) -> str:
    terms = f"{priority_word(key.priority)} priority, {key.share:g} of a fair share"
    if key.budget.amount:
        terms += f", a budget of {key.budget.amount:g} a {key.budget.period}"
    if key.budget.tokens_per_day:
        terms += f", {key.budget.tokens_per_day:,} tokens a day"
    return terms


ROUTES = (
    Route("GET", "/helios/v1/node", node, Scope.ADMIN, "This daemon.", Answer("the node", NodeView)),
    Route(
        "GET",
        "/helios/v1/devices",
        devices,
        Scope.ADMIN,
        "The devices with the ledger's columns.",
        Answer("devices", DeviceList),
    ),
    Route(
        "GET",
        "/helios/v1/cluster",
        cluster,
        Scope.ADMIN,
        "The nodes that answer as one, as this one sees them.",
        Answer("members, this node included", MemberList),
    ),
    Route(
        "GET",
        "/helios/v1/doctor",
        doctor,
        Scope.ADMIN,
        "Look for what is wrong with this installation.",
        Answer("findings", CheckList),
    ),
    Route(
        "POST",
        "/helios/v1/doctor/storage",
        doctor_storage,
        Scope.ADMIN,
        "Measure how fast weights can be loaded from the store.",
        Answer("speeds of each way, which are kept and decide how engines load weights on a GPU", StorageView),
        detail="Reads a large file of the store about a dozen times; takes seconds to minutes.",
        errors=("no_large_file", "conflict"),
        preview=doctor_storage_plan,
    ),
    Route(
        "GET",
        "/helios/v1/keys",
        list_keys,
        Scope.ADMIN,
        "The API keys, without their secrets.",
        Answer("keys", KeyList),
    ),
    Route(
        "POST",
        "/helios/v1/keys",
        add_key,
        Scope.ADMIN,
        "Make an API key.",
        Answer("the key; its secret is shown this once", KeyView),
        body=AddKey,
        detail="From the first key on, inference over TCP needs one.",
        errors=("key_exists",),
        preview=add_key_plan,
    ),
    Route(
        "PATCH",
        "/helios/v1/keys/{name:.+}",
        change_key,
        Scope.ADMIN,
        "Change the class, the share, the budget or the tokens of an API key.",
        Answer("the key as it is now", KeyView),
        body=ChangeKey,
        detail="Holds for requests from now on; those that wait keep their place.",
        errors=("key_not_found", "state_not_written"),
        preview=change_key_plan,
    ),
    Route(
        "DELETE",
        "/helios/v1/keys/{name:.+}",
        remove_key,
        Scope.ADMIN,
        "Remove an API key; it stops working at once.",
        Answer("what was removed", KeyView),
        errors=("key_not_found",),
        preview=remove_key_plan,
    ),
)
