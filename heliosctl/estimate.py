"""The command estimate: what a model would take, here or on other devices, and how right such numbers were so far."""

import argparse
from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.arguments import byte_size, count, number
from heliosctl.client import Client, connect
from heliosctl.exits import Exit
from heliosctl.output import say, show

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import EstimateView, FootprintView

_PATH = "/helios/v1/estimate"
_HERE = {"model", "kv_cache_bytes", "max_model_len", "max_num_seqs"}
"""Who says nothing else asks about this node."""


def add(commands: "Commands") -> None:
    command = commands.add(
        "estimate",
        estimate,
        "predict the memory a model takes, before anything is loaded",
        [
            "heliosctl estimate org/name",
            "heliosctl estimate org/name --max-model-len 8192 --kv-cache 4GiB",
            "heliosctl estimate ./config.json --gpu H100 --tp 2 --context 32768 --concurrency 64 --why",
            "heliosctl estimate --hub org/name --gpu 'MIG 1g.10gb' --precision fp8",
            "heliosctl estimate DIRECTORY --gpu A100-80 --train lora --batch 4 --checkpointing",
            "heliosctl estimate config.json --context 8192 --concurrency 16 --recommend --price H100=1.99",
            "heliosctl estimate config.json --gpu L40S --context 8192 --concurrency 16 --size",
            "heliosctl estimate --accuracy",
        ],
        about="Ends with 6 when it can never fit.",
        listing=True,
    )
    command.add_argument(
        "model", metavar="MODEL", nargs="?", help="org/name, org/name@rev or an alias; a config.json; a directory"
    )
    command.add_argument("--why", action="store_true", help="where each number comes from")
    command.add_argument("--accuracy", action="store_true", help="predicted against measured, so far")
    _serving(command)
    _elsewhere(command)
    _load(command)
    _training(command)


def _serving(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--context", "--max-model-len", dest="context", type=count, metavar="TOKENS", help="longest sequence"
    )
    command.add_argument("--kv-cache", type=byte_size, metavar="SIZE", help="size of the KV cache, such as 4GiB")
    command.add_argument("--max-num-seqs", type=count, metavar="N", help="most sequences at a time")


def _elsewhere(command: argparse.ArgumentParser) -> None:
    where = command.add_argument_group("on other devices")
    where.add_argument("--hub", metavar="REPO", help="a repository of the hub: a few kilobytes of it are read")
    where.add_argument("--revision", metavar="REV", help="of --hub: branch, tag or commit")
    where.add_argument("--gpu", metavar="NAME", help="H100, 4090, MI300X, 'MIG 1g.10gb'; default: what is here")
    where.add_argument("--device-memory", type=byte_size, metavar="SIZE", help="instead of the GPU's own")
    where.add_argument("--tp", type=count, metavar="N", help="tensor-parallel ranks")
    where.add_argument("--pp", type=count, metavar="N", help="pipeline stages")
    where.add_argument("--dp", type=count, metavar="N", help="data-parallel replicas")
    where.add_argument("--ep", action="store_true", help="deal whole experts out")
    where.add_argument("--concurrency", type=count, metavar="N", help="requests of full length at once")
    where.add_argument("--precision", metavar="P", help="fp32, bf16, fp16, fp8, int8, int4 or fp4")
    where.add_argument("--kv-dtype", metavar="T", help="auto, fp8, ...")
    where.add_argument("--quantize", metavar="Q", help="what the engine makes of a plain checkpoint")
    where.add_argument("--speculative", type=count, metavar="N", help="tokens drafted by the checkpoint's own layers")
    where.add_argument("--size", action="store_true", help="the largest batch and the longest context that fit")
    where.add_argument("--max-num-batched-tokens", type=count, metavar="N", help="tokens of a step")
    where.add_argument("--engine-version", metavar="V", help="of vLLM, such as 0.19.0")
    where.add_argument("--eager", action="store_true", help="without CUDA graphs")
    where.add_argument("--recommend", action="store_true", help="what serves it of the catalogue, cheapest first")
    where.add_argument("--gpus", metavar="A,B", help="for --recommend: only these")
    where.add_argument("--price", action="append", metavar="GPU=USD", help="an hour of a card, instead of the assumed")


def _load(command: argparse.ArgumentParser) -> None:
    load = command.add_argument_group("when does the KV cache overflow")
    load.add_argument("--rate", type=number, metavar="R", help="requests a second")
    load.add_argument("--prompt", type=number, metavar="TOKENS", help="of a prompt, in the mean")
    load.add_argument("--output-tokens", type=number, metavar="TOKENS", help="of an answer, in the mean")
    load.add_argument("--speed", type=number, metavar="R", help="tokens a second that a sequence writes")


def _training(command: argparse.ArgumentParser) -> None:
    train = command.add_argument_group("training", "--context, --tp and --dp count here too.")
    train.add_argument("--train", choices=("full", "lora", "qlora"), help="estimate training instead of serving")
    train.add_argument("--optimizer", metavar="NAME", help="adam, adamw, adam8bit, adafactor or sgd")
    train.add_argument("--train-precision", metavar="P", help="fp32, bf16, mixed or master")
    train.add_argument("--batch", type=count, metavar="N", help="sequences in one pass of a device")
    train.add_argument("--rank", type=count, metavar="N", help="of LoRA")
    train.add_argument("--checkpointing", action="store_true", help="calculate activations again")
    train.add_argument("--zero", type=int, choices=(0, 1, 2, 3), help="stage of ZeRO over --dp")
    train.add_argument("--offload", choices=("none", "optimizer", "all"), help="what goes to the host")


def estimate(args: Namespace) -> Exit:
    from heliosctl.estimate_request import body_of

    client = connect(args)
    if args.accuracy:
        return _accuracy(args, client)
    from heliosctl.bars import plain_output
    from heliosctl.estimate_words import words
    from heliosd.wire import EstimateView

    asked = body_of(args)
    body = client.call("POST", _PATH, asked)
    view = EstimateView.model_validate(body)

    def human(wide: bool) -> str:
        here = asked.keys() <= _HERE
        measured = _measured(client, view.model) if here else None
        return words(view, measured, stored=here, why=args.why, wide=wide, plain=plain_output())

    show(args.output, body, human)
    return _exit(view)


def _accuracy(args: Namespace, client: Client) -> Exit:
    from heliosctl.estimate_words import accuracy_words
    from heliosd.wire import AccuracyView

    body = client.get(f"{_PATH}/accuracy")
    view = AccuracyView.model_validate(body)
    if not view.terms and args.output in ("table", "wide"):
        say("no start was measured here yet: `heliosctl run MODEL` makes the first")
        return Exit.OK
    show(args.output, body, lambda wide: accuracy_words(view))
    return Exit.OK


def _measured(client: Client, model: str) -> "FootprintView | None":
    """What a replica that is up was measured to hold; None when there is none."""
    from heliosd.wire import ReplicaView

    replicas = [ReplicaView.model_validate(row) for row in client.get("/helios/v1/replicas")["replicas"]]
    return next((replica.measured for replica in replicas if replica.model == model and replica.measured), None)


def _exit(view: "EstimateView") -> Exit:
    fits = view.recommendation.options if view.recommendation is not None else view.verdict != "never_fits"
    return Exit.OK if fits else Exit.CANNOT_FIT
