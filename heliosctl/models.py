"""Commands about the store: pull, import, ls, show, alias, rm."""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliosctl.arguments import model_argument
from heliosctl.changing import plan_each
from heliosctl.client import Client, connect, failure_from, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, pairs, say, show, table, watch
from heliosctl.place import UnixPlace
from heliosd.core.units import format_bytes

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import AddModel, ModelDetail

_COLUMNS = (
    Column("MODEL"),
    Column("REVISION"),
    Column("SIZE", right=True),
    Column("STATE"),
    Column("CREATED"),
    Column("BASE"),
    Column("TIER", wide=True),
    Column("PARAMETERS", wide=True, right=True),
    Column("CONTEXT", wide=True, right=True),
    Column("ARCHITECTURE", wide=True),
    Column("ALIASES", wide=True),
    Column("SOURCE", wide=True),
)


def add(commands: "Commands") -> None:
    command = commands.add(
        "pull",
        pull,
        "fetch a model or an adapter from the hub, or another node, into the store",
        ["heliosctl pull org/name", "heliosctl pull org/name@v1.0 --alias name"],
        about="An interrupted pull goes on where it stopped; a second one of the same model joins the first. "
        "What other nodes of the cluster have comes from them; all of it where the hub cannot be asked.",
        listing=True,
    )
    command.add_argument("repository", metavar="REPO[@REV]", help="a hub repository; REV is a branch, tag or commit")
    command.add_argument(
        "--anyway", action="store_true", help="fetch it also when no device of the node could ever hold it"
    )
    _adding(command)

    command = commands.add(
        "import",
        import_,
        "take a model or an adapter from a directory or a .gguf file of the daemon's machine",
        [
            "heliosctl import ./my-model --name me/my-model",
            "heliosctl import ./my-lora --base me/my-model",
            "heliosctl import /models/small.gguf --alias small",
        ],
        listing=True,
    )
    command.add_argument(
        "path",
        metavar="PATH",
        help="a directory with config.json (of an adapter: adapter_config.json) and weights, or a .gguf file",
    )
    _adding(command)

    command = commands.add(
        "ls", ls, "list the models of the store", ["heliosctl ls -o wide"], listing=True, watchable=True
    )
    command.add_argument("-q", "--quiet", action="store_true", help="names only")

    command = commands.add(
        "show",
        detail,
        "show what is known about a model",
        ["heliosctl show org/name", "heliosctl show org/name -o json"],
        listing=True,
    )
    model_argument(command)

    command = commands.add(
        "alias",
        alias,
        "give a model of the store a further name, or take it back",
        ["heliosctl alias best org/name", "heliosctl alias --rm best"],
        about="An alias that exists moves. It works at once, also while the model runs.",
        listing=True,
    )
    command.add_argument("alias", metavar="NAME", help="the further name")
    command.add_argument("model", metavar="MODEL", nargs="?", help="what it shall mean")
    command.add_argument("--rm", action="store_true", help="take the name back; the model stays")

    command = commands.add(
        "rm", rm, "remove models from the store", ["heliosctl rm org/name", "heliosctl rm -y org/a org/b"], listing=True
    )
    model_argument(command, nargs="+")
    command.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _adding(command: Any) -> None:
    command.add_argument("--name", metavar="REF", help="what to call it (default: after the repository or folder)")
    command.add_argument("--alias", metavar="NAME", help="a second, short name")
    command.add_argument(
        "--base", metavar="MODEL", help="of an adapter: the model it is for (default: what its configuration names)"
    )
    command.add_argument("--allow-pickle", action="store_true", help="accept weights that can run code when loaded")


def pull(args: Namespace) -> Exit:
    from heliosd.wire import AddModel

    location, _, revision = args.repository.partition("@")
    wanted = AddModel(
        source="hub",
        location=location,
        revision=revision or None,
        ref=args.name,
        alias=args.alias,
        allow_pickle=args.allow_pickle,
        base=args.base,
        anyway=args.anyway,
    )
    return _bring(connect(args), wanted, args.output)


def import_(args: Namespace) -> Exit:
    from heliosd.wire import AddModel

    client = connect(args)
    path = Path(args.path).expanduser()
    if isinstance(client.place, UnixPlace):  # elsewhere the path is the other machine's, and it will judge
        path = path.resolve()
        if not path.exists():
            raise Failure(f"cannot import {args.path}: there is no such file or directory", Exit.NOT_FOUND)
    wanted = AddModel(
        source="gguf" if path.suffix.lower() == ".gguf" else "directory",
        location=str(path),
        ref=args.name,
        alias=args.alias,
        allow_pickle=args.allow_pickle,
        base=args.base,
    )
    return _bring(client, wanted, args.output)


def _bring(client: Client, wanted: "AddModel", form: str) -> Exit:
    import json

    from heliosctl.progress import progress
    from heliosd.wire import ModelView, ProgressView

    with client.stream("POST", "/helios/v1/models", wanted.model_dump(exclude_none=True)) as stream, progress() as bar:
        for event in stream:
            match event.kind:
                case "progress":
                    bar(ProgressView.model_validate_json(event.data))
                case "error":
                    raise failure_from(event.data, None)
                case "done":
                    body = json.loads(event.data)
                    break
        else:
            raise Failure(f"cannot add {wanted.location}: heliosd ended the answer early; `heliosctl logs` may say why")
    model = ModelView.model_validate(body)
    say(f"{model.ref} is in the store: {format_bytes(model.size_bytes)}, revision {model.revision[:12]}")
    show(form, body, lambda wide: _models([body], wide) if wide else model.ref)
    return Exit.OK


def ls(args: Namespace) -> Exit:
    client = connect(args)

    def draw() -> None:
        body = client.get("/helios/v1/models")
        models = body["models"]
        if args.quiet:
            print(*(model["ref"] for model in models), sep="\n", end="\n" if models else "")
            return
        show(args.output, body, lambda wide: _models(models, wide))
        if not models and args.output in ("table", "wide"):
            say("the store is empty: `heliosctl pull org/name` or `heliosctl import PATH` bring a model")

    watch(args, client, draw)
    return Exit.OK


def _models(models: Sequence[Mapping[str, Any]], wide: bool) -> str:
    """Bodies of `ModelView`, not made into one: loading pydantic would take longer than all the rest of `ls`."""
    from heliosctl.times import ago

    rows = [
        (
            model["ref"],
            model["revision"][:12],
            "-" if model["peer"] else format_bytes(model["size_bytes"]),
            f"on {model['peer']}" if model["peer"] else model["state"],
            "-" if model["peer"] else ago(model["created_at"]),
            model["base"] or "-",
            model["tier"] or "-",
            _count(model["parameters"]),
            str(model["max_model_len"] or "-"),
            model["architecture"] or "-",
            ", ".join(model["aliases"]) or "-",
            model["source"],
        )
        for model in models
    ]
    return table(_COLUMNS, rows, wide=wide)


def detail(args: Namespace) -> Exit:
    from heliosd.wire import ModelDetail

    body = connect(args).get(f"/helios/v1/models/{quoted(args.model)}")
    show(args.output, body, lambda wide: _detail(ModelDetail.model_validate(body), wide))
    return Exit.OK


def _detail(model: "ModelDetail", wide: bool) -> str:
    from heliosctl.times import ago

    estimate = model.estimate
    text = pairs(
        [
            ("model", model.ref),
            ("aliases", ", ".join(model.aliases)),
            ("state", f"on {model.peer}" if model.peer else model.state),
            ("revision", model.revision),
            ("size", f"{format_bytes(model.size_bytes)} in {len(model.files)} files"),
            ("source", model.source),
            ("created", ago(model.created_at)),
            ("tier", model.tier or ""),
            ("adapter of", f"{model.base}, of rank {model.adapter_rank}" if model.base else ""),
            ("architecture", model.architecture or ""),
            ("parameters", _count(model.parameters) if model.parameters else ""),
            ("dtype", model.dtype or ""),
            ("context", f"{model.max_model_len} tokens" if model.max_model_len else ""),
            ("KV cache", f"{format_bytes(model.kv_bytes_per_token)} per token" if model.kv_bytes_per_token else ""),
            ("settings", ", ".join(f"{name}={value}" for name, value in model.settings.items())),
            ("estimate", f"{format_bytes(estimate.per_device.total_bytes)} per device" if estimate else ""),
            ("verdict", f"{estimate.verdict.replace('_', ' ')}: {estimate.reason}" if estimate else ""),
        ]
    )
    if not wide:
        return text
    columns = (Column("FILE"), Column("SIZE", right=True), Column("SHA256"))
    return text + "\n\n" + table(columns, [(f.path, format_bytes(f.size_bytes), f.digest) for f in model.files])


def alias(args: Namespace) -> Exit:
    from heliosd.wire import AliasView, SetAlias

    if args.rm == bool(args.model):
        raise Failure(f"cannot tell what {args.alias} shall mean: name a model or say --rm (not both)", Exit.USAGE)
    client, path = connect(args), f"/helios/v1/aliases/{quoted(args.alias)}"
    body = client.call("DELETE", path) if args.rm else client.call("PUT", path, SetAlias(ref=args.model).model_dump())
    done = AliasView.model_validate(body)
    say(f"{done.alias} {'no longer means' if args.rm else 'means'} {done.ref}")
    show(args.output, body, lambda wide: done.alias)
    return Exit.OK


def rm(args: Namespace) -> Exit:
    from heliosd.wire import Removed

    if args.dry_run:
        return plan_each(args, connect(args), (("DELETE", f"/helios/v1/models/{quoted(ref)}") for ref in args.model))
    if not args.yes:
        if not sys.stdin.isatty():
            raise Failure("cannot ask whether to remove: there is no terminal. Say -y to remove anyway", Exit.USAGE)
        print(f"Remove {', '.join(args.model)} from the store? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("nothing was removed")
            return Exit.FAILED
    client = connect(args)
    bodies = []
    for ref in args.model:
        body = client.call("DELETE", f"/helios/v1/models/{quoted(ref)}")
        removed = Removed.model_validate(body)
        say(f"{removed.ref} is removed: {format_bytes(removed.freed_bytes)} are free again")
        bodies.append(body)
    if args.output in ("json", "yaml"):
        show(args.output, {"removed": bodies}, lambda wide: "")
    return Exit.OK


def _count(number: int | None) -> str:
    """135M, 7.2B: parameters are counted in thousands, not in 1024s."""
    if number is None:
        return "-"
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
