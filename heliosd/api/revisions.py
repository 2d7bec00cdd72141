"""What a model has meant: its revisions, the way back to one, and what differs between two."""

from aiohttp import web

from heliosd.api.asked import body_of, json_of, ref_of
from heliosd.api.errors import error_body
from heliosd.api.parts import Parts
from heliosd.api.plans import plan_of, write_step
from heliosd.api.progress import watched
from heliosd.api.routes import Answer, Route, Scope
from heliosd.api.sse import event_stream, frame
from heliosd.api.users import users_of
from heliosd.core.names import SHOWN_DIGITS, ModelRef, kept_ref
from heliosd.errors import BadRequest, HeliosError, NotFound
from heliosd.store.store import Compared
from heliosd.wire import (
    ChangePlan,
    Compare,
    DifferenceView,
    ErrorBody,
    FileDifferenceView,
    KeyDifferenceView,
    ProgressView,
    RevisionList,
    RevisionView,
    Rollback,
    RolledBack,
    TensorDifferenceView,
)


async def list_revisions(request: web.Request, parts: Parts) -> web.StreamResponse:
    ref = ref_of(request.match_info["ref"])
    past = await parts.store.past(ref)
    if not past:
        raise NotFound(f"cannot list the revisions of {ref}: it was just removed", code="model_not_found")
    model, users = past[0].ref, users_of(parts.node.snapshot())
    keep = parts.store.keep(model)
    views = [
        RevisionView(
            ref=str(kept_ref(model, each.revision)),
            revision=each.revision,
            at=each.at,
            why=each.why,
            source=each.source,
            current=each.current,
            kept=each.current or rank < keep,
            size_bytes=each.size_bytes,
            own_bytes=each.own_bytes,
            shared_bytes=each.size_bytes - each.own_bytes,
            used_by=list(users.get(each.revision, ())),
        )
        for rank, each in enumerate(past)
    ]
    return json_of(RevisionList(model=str(model), keep=keep, revisions=views))


async def roll_back(request: web.Request, parts: Parts) -> web.StreamResponse:
    ref = ref_of(request.match_info["ref"])
    asked = await body_of(request, Rollback)
    before, now = await parts.store.move(ref, _beginning(ref, asked.to))
    model = str(now.ref)
    text = f"{model} means revision {now.revision[:SHOWN_DIGITS]} again, no longer {before.revision[:SHOWN_DIGITS]}"
    parts.journal.note("model", text, model=model)
    return json_of(RolledBack(model=model, before=before.revision, revision=now.revision))


async def compare(request: web.Request, parts: Parts) -> web.StreamResponse:
    """Tell what differs, while somebody watches."""
    asked = await body_of(request, Compare)
    model, other = ref_of(asked.model), ref_of(asked.other) if asked.other else None
    async with event_stream(request) as (stream, response):
        outcome = await watched(stream, lambda tell: parts.store.compare(model, other, tell))
        if isinstance(outcome, HeliosError):
            await stream.send(frame("error", error_body(outcome)))
        else:
            await stream.send(frame("done", _difference(outcome)))
    return response


def _difference(compared: Compared) -> DifferenceView:
    found = compared.found
    return DifferenceView(
        before=str(compared.before),
        after=str(compared.after),
        files=[
            FileDifferenceView(
                path=file.path, change=file.change, before_bytes=file.before_bytes, after_bytes=file.after_bytes
            )
            for file in found.files
        ],
        tensors=[
            TensorDifferenceView(
                name=tensor.name,
                change=tensor.change,
                before=tensor.before,
                after=tensor.after,
                size_bytes=tensor.size_bytes,
            )
            for tensor in found.tensors
        ],
        keys=[
            KeyDifferenceView(file=key.file, key=key.key, change=key.change, before=key.before, after=key.after)
            for key in found.keys
        ],
        equal_files=found.equal_files,
        equal_tensors=found.equal_tensors,
    )


async def roll_back_plan(request: web.Request, parts: Parts) -> ChangePlan:
    ref, asked = ref_of(request.match_info["ref"]), await body_of(request, Rollback)
    past = await parts.store.past(ref)
    if not past:
        raise NotFound(f"cannot find the model {ref}: it is not in the store", code="model_not_found")
    now = next(each for each in past if each.current)
    others = [each for each in past if not each.current and each.revision.startswith(_beginning(ref, asked.to) or "")]
    if not others:
        raise NotFound(
            f"cannot roll {ref} back: the store has no such earlier revision; `heliosctl revisions {ref}` lists them",
            code="revision_not_found",
        )
    users = users_of(parts.node.snapshot()).get(now.revision, ())
    why = f"it means {now.revision[:SHOWN_DIGITS]} now"
    why += f"; {', '.join(users)} finish what they serve with it" if users else "; no replica uses it"
    to = others[0].revision[:SHOWN_DIGITS]
    return plan_of(f"{now.ref} would mean revision {to} again", [write_step(str(now.ref), why)])


def _beginning(ref: ModelRef, to: str | None) -> str | None:
    """The beginning of a digest, as asked. Raises BadRequest."""
    if to is not None and not (8 <= len(to) <= 64 and set(to) <= set("0123456789abcdef")):
        raise BadRequest(
            f"cannot read {to[:80]!r} as a revision: give 8 to 64 hexadecimal digits of its digest; "
            f"`heliosctl revisions {ref}` lists them",
            param="to",
        )
    return to


_EVENTS = (("progress", ProgressView), ("done", DifferenceView), ("error", ErrorBody))

ROUTES = (
    Route(
        "GET",
        "/helios/v1/models/{ref:.+}/revisions",
        list_revisions,
        Scope.ADMIN,
        "What a model means and has meant, as far as it is in the store.",
        Answer("its revisions", RevisionList),
        errors=("model_not_found",),
    ),
    Route(
        "POST",
        "/helios/v1/models/{ref:.+}/rollback",
        roll_back,
        Scope.ADMIN,
        "Let a model mean an earlier revision again.",
        Answer("what it meant and what it means now", RolledBack),
        body=Rollback,
        detail="Requests get it at once; a replica of the other revision finishes what it serves. Doing it again takes "
        "it back.",
        errors=("model_not_found", "revision_not_found", "conflict"),
        preview=roll_back_plan,
    ),
    Route(
        "POST",
        "/helios/v1/store/diff",
        compare,
        Scope.ADMIN,
        "Tell what differs between two models or revisions, with the progress as events.",
        Answer("progress, then `done` or `error`", events=_EVENTS, media="text/event-stream"),
        body=Compare,
        errors=("model_not_found", "revision_not_found", "corrupt_data"),
        reads=True,
    ),
)
