"""Writes docs/api.md, the API for people, from the same routes as openapi.json."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from heliosd.api.codes import CODES
from heliosd.api.openapi import document, plain_path
from heliosd.api.routes import Route

_INTRODUCTION = """# The HTTP API

*Made by `python -m heliosd.api.openapi` from the routes and models in the code; a test keeps it true. The same as
OpenAPI 3.1 is at `/openapi.json`.*

Helios listens on TCP (`http://127.0.0.1:8484` unless configured otherwise) and on a Unix socket; both answer the same
paths.

- **Keys.** On the Unix socket root, the daemon's own user and members of the group `helios` may do everything: the
  kernel says who they are. Over TCP send `Authorization: Bearer KEY` or `x-api-key: KEY`. `/helios/v1/*` needs an
  admin key. `/v1/*` needs any key once one exists or when the port can be reached from other machines; until then it
  is open to this machine. `/healthz`, `/readyz`, `/metrics` and `/openapi.json` are open.
- **Hosts.** While the port can be reached from this machine only, a request over TCP without a key must name this
  machine in `Host`: localhost, a loopback address, `api.host` or the host of `cluster.advertise_url`. So no web page
  can use a model through a visitor's browser. For the same reason `/v1/*` takes bodies declared as `application/json`
  or `multipart/form-data` only.
- **Tickets.** Every answer carries the header `x-request-id`: the request's ticket, which is also in the logs and the
  journal. `GET /helios/v1/explain/TICKET` tells what happened to it.
- **Errors** have OpenAI's shape, `{"error": {"message", "type", "code", "param", "cause"}}`; below `/v1/messages`
  Anthropic's. `code` is stable; `cause` has an engine's own words. `Retry-After` says when to come back, where that
  is known. An error in the middle of an event stream is an event with the same body.
- **Changes.** Every call of `/helios/v1` that changes something takes `?dry_run=true`: the answer is a
  [ChangePlan](#changeplan) with bytes, seconds and reasons, or the error that the change would end with, and nothing
  changes. With `Idempotency-Key: WORD` the same request is carried out once in 24 h: who repeats it meanwhile waits
  for the first, who repeats it later (also after a restart) gets the same answer with `Idempotency-Replayed: true`,
  new secrets left out; of a stream its last event. Another request under the same key is a 422. What failed for now
  (404, 409, 429, 5xx) is not kept. Keys are each caller's own. `X-Helios-Reason: TEXT` goes into the audit
  (`GET /helios/v1/audit`), where every such call is, refused ones and dry runs too.
- **Bytes** are integers named `…_bytes`, seconds are numbers named `…_s`, moments are seconds since the epoch.
"""

_WAITING = """
### Waiting for a model

A request whose model is not ready is held, at most for `queue.timeout_s`, and not refused. Of what may end its wait,
`queue_full`, `overloaded`, `draining` and, after a failed start, `engine_failed` carry `Retry-After`; `queue_timeout`
does not.

- `X-Helios-Deadline: 30s` shortens the wait; then the answer is 503 `queue_timeout`.
- `X-Helios-Priority: low`, `normal` or `high` is the class: all of a higher one goes first. A low or high key says it
  for every model; a normal key leaves it to the model (`priority` in its table of `helios.toml`). The header lowers
  what follows from that and never raises it; only who needs no key may say any. Within a class, keys share by `share`
  and by the work of their requests: a token for four characters of prompt, and the answer's limit (256 when it has
  none).
- When a streamed request (`"stream": true` to chat, completions, responses or messages) has waited for
  `queue.tell_after_s`, its answer begins: 200, `text/event-stream`, and a comment whenever its state changes and every
  10 s. `position` counts the requests before it, `eta` is in seconds and left out when nobody can tell:

      : helios state=queued position=3 eta=12 reason="r3 is starting"

  Clients skip comments. What goes wrong from there on is an event with an error's body, the status stays 200.
"""

_PASSED_ON = """\
OpenAI's API and Anthropic's messages, answered by vLLM's own handlers: what they accept and answer is what vLLM
documents. Helios reads `model` and how much work it may be, finds or starts a replica (here or on a peer), and passes
the request on. Closing the connection frees the sequence. `model` is a ref (`org/name`, `name`, either with
`@revision`) or an alias; the engine is asked under the model's own name, and the answer says that name. A model that
cannot do what a path asks for is answered with 404 `not_supported`.
"""


def page(routes: Iterable[Route]) -> str:
    """docs/api.md."""
    routes = tuple(routes)
    parts = [_INTRODUCTION, _inference(route for route in routes if route.group == "inference")]
    for group, title in (("admin", "Administration: /helios/v1"), ("machines", "For machines")):
        parts += [f"## {title}\n", *(_section(route) for route in routes if route.group == group)]
    parts += ["## Bodies\n", *_bodies(routes), _codes()]
    return "\n".join(parts).rstrip() + "\n"


def _inference(routes: Iterable[Route]) -> str:
    rows = [f"| `{route.method} {plain_path(route)}` | {route.summary} |" for route in routes]
    return "\n".join(
        [
            "## Inference: /v1\n",
            _PASSED_ON,
            "| path | |",
            "|---|---|",
            *rows,
            _WAITING,
        ]
    )


def _section(route: Route) -> str:
    lines = [f"### {route.method} {plain_path(route)}\n", route.summary]
    lines += [route.detail] if route.detail else []
    if route.changes:
        lines.append("Dry run, idempotency key and reason: see above.")
    lines += ["", *(f"- `?{p.name}=` {p.kind}: {p.text}" for p in route.parameters)]
    if route.body is not None:
        lines.append(f"- body: {_link(route.body)}")
    answer = route.answer
    if answer.model is not None:
        lines.append(f"- answer: {_link(answer.model)}, {answer.text}")
    elif not answer.events:
        lines.append(f"- answer: {answer.text}")
    if answer.events:
        events = ", ".join(f"`{name}` {_link(model)}" for name, model in answer.events)
        lines.append(f"- events: {events}")
    if route.errors:
        lines.append("- errors: " + ", ".join(f"`{code}`" for code in route.errors))
    lines.append("")
    return "\n".join(lines)


def _bodies(routes: tuple[Route, ...]) -> Iterable[str]:
    schemas: dict[str, Any] = document(routes)["components"]["schemas"]
    for name, schema in sorted(schemas.items()):
        lines = [f"### {name}\n"]
        lines += [schema["description"], ""] if "description" in schema else []
        required = schema.get("required", [])
        lines += ["| field | type | |", "|---|---|---|"]
        for field, what in schema.get("properties", {}).items():
            mark = f"`{field}`" if field in required else f"`{field}`?"
            lines.append(f"| {mark} | {_type(what)} | {what.get('description', '')} |")
        yield "\n".join([*lines, ""])


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map to {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))


def _codes() -> str:
    rows = [f"| `{code}` | {status} | {text} |" for code, status, text in CODES]
    return "\n".join(["## Error codes\n", "| code | status | means |", "|---|---|---|", *rows, ""])


def _link(model: type[BaseModel]) -> str:
    return f"[{model.__name__}](#{model.__name__.lower()})"
