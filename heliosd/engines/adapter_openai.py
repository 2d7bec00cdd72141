"""vLLM's own HTTP surface: its routes, validation and errors, as an ASGI application without a server.

With `adapter` the only module that knows vLLM's insides. The routes are the same for all engines that can do the
same tasks, so they are built once for each such kind; what differs is the state they find in `request.app.state`.
Import it in a thread: FastAPI and vLLM's routes take a second.
"""

import copy
import dataclasses
import importlib
import inspect
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.api_server.routers import register_api_routers
from vllm.entrypoints.launchers.cli_args import FrontendArgs, make_arg_parser
from vllm.entrypoints.serve.exception_handling.handlers.http import http_exception_handler
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.entrypoints.serve.utils import fingerprint
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

from heliosd.engines.asgi import Application
from heliosd.engines.changed import changed

PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/{response_id}",
        "/v1/responses/{response_id}/cancel",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/embeddings",
        "/v2/embed",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/models",
        "/v1/score",
        "/score",
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/pooling",
        "/classify",
        "/tokenize",
        "/detokenize",
    }
)
"""What clients may reach. vLLM has more: adapters, profiling, sleeping, health; those are Helios' own to do."""

FRONTEND_FIELDS = frozenset(field.name for field in dataclasses.fields(FrontendArgs))

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "chat_template.json")

_PARSERS = (
    ("<｜tool▁calls▁begin｜>", "deepseek_v3"),
    ("<|tool_calls_section_begin|>", "kimi_k2"),
    ("<|python_tag|>", "llama3_json"),
    ("[TOOL_CALLS]", "mistral"),
    ("<minimax:tool_call>", "minimax_m2"),
    ("<arg_key>", "glm45"),
    ("<seed:tool_call>", "seed_oss"),
    ("<function_calls>", "olmo3"),
    ("<function=", "qwen3_coder"),
    ("<start_function_call>", "functiongemma"),
    ("<|start|>assistant<|channel|>", "openai"),
    ("<tool_call>", "hermes"),
)
"""What a chat template says where it writes a tool call, and vLLM's parser for that way; the first that fits."""


_fingerprints: dict[int, str | None] = {}
"""Of the engines that are being served at the moment, by the identity of their configuration."""


def _fingerprint_of(config: Any) -> Any:
    """vLLM's own. Its six services would each hash the whole configuration, 0.1 s in all, on the event loop."""
    theirs = getattr(fingerprint, "get_system_fingerprint", None)
    if not callable(theirs):
        raise changed("fingerprint.get_system_fingerprint")
    if not hasattr(theirs, "helios_theirs"):

        def known(config: Any) -> Any:
            return _fingerprints[id(config)] if id(config) in _fingerprints else theirs(config)

        known.helios_theirs = theirs  # type: ignore[attr-defined]
        fingerprint.get_system_fingerprint = known
    return fingerprint.get_system_fingerprint(config)


class OpenAi:
    """Builds what serves engines over HTTP; keeps the routes already built. Methods may be called in any thread."""

    fields = FRONTEND_FIELDS
    """Arguments the operator may set for this part of vLLM."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arguments: Any = None
        self._routes: dict[tuple[object, ...], Application] = {}

    def warm(self) -> None:
        """Do ahead what takes time: the argument parser and the routes of an engine that generates."""
        missing = {parser for _, parser in _PARSERS} - set(ToolParserManager.list_registered())
        if missing:
            raise changed(f"the tool parser {missing.pop()}")
        for module in ("vllm.renderers.hf", "transformers.models.auto.tokenization_auto", "transformers.generation"):
            importlib.import_module(module)
        current_platform.import_ir_kernels()
        self._base_arguments()
        self._application(("generate",), None)

    def prepare(
        self, engine: Any, served_names: tuple[str, ...], tasks: tuple[str, ...], options: Mapping[str, Any]
    ) -> tuple[Application, Any]:
        """The routes for what this engine can do, and what `serve` needs to know. Blocks, 0.2 s for a new kind."""
        arguments = copy.copy(self._base_arguments())
        arguments.model = engine.model_config.model
        arguments.served_model_name = list(served_names)
        arguments.structured_outputs_config = engine.vllm_config.structured_outputs_config
        arguments.disable_log_stats = False
        arguments.helios_fingerprint = _fingerprint_of(engine.vllm_config)
        if "generate" in tasks:
            template = _chat_template(engine)
            arguments.enable_auto_tool_choice = True
            arguments.tool_call_parser = tool_parser_for(template)
            # A call then always has arguments that fit the tool's schema. Without, vLLM only sees to it where the
            # request says `strict`, and a small model told to call a tool makes up anything.
            arguments.tool_strict_level = "parameter"
            if not any(Path(engine.model_config.model, file).exists() for file in _PROCESSOR_FILES):
                # Told the template, vLLM does not look for it in a processor. For a model that has none it would
                # load the tokenizer a second time to find that out: 0.4 s on the event loop.
                arguments.chat_template = template
        for name, value in options.items():
            if name in self.fields:
                setattr(arguments, name, value)
        if not arguments.tool_call_parser:
            arguments.enable_auto_tool_choice = False
        return self._application(tasks, engine.model_config), arguments

    async def serve(self, engine: Any, arguments: Any, tasks: tuple[str, ...]) -> object:
        """What vLLM's handlers take from `request.app` for this engine. Quick, and on the event loop it serves on."""
        state, config = State(), engine.vllm_config
        _fingerprints[id(config)] = arguments.helios_fingerprint
        try:
            await init_app_state(engine, state, arguments, tasks)
        finally:
            del _fingerprints[id(config)]
        # A handler tells its server to end when its engine has died. Ours has other engines to serve.
        state.server = SimpleNamespace(should_exit=False)
        return SimpleNamespace(state=state)

    async def load_adapter(self, engine: Any, served: Any, name: str, directory: Path) -> None:
        """Read an adapter into the engine and let requests name it. Raises what vLLM does, and then changes nothing.

        vLLM's own way refuses a name that exists, or reads the new weights under requests that use the old ones.
        """
        models = served.state.openai_serving_models
        adapter = LoRARequest(
            lora_name=name,
            lora_int_id=models.lora_id_counter.inc(1),
            lora_path=str(directory),
            base_model_name=models.model_name(),
        )
        await engine.add_lora(adapter)
        models.lora_requests[name] = adapter

    def _base_arguments(self) -> Any:
        with self._lock:
            if self._arguments is None:
                self._arguments = make_arg_parser(FlexibleArgumentParser()).parse_args([])
            return self._arguments

    def _application(self, tasks: tuple[str, ...], model_config: Any) -> Application:
        pooling = None if model_config is None else model_config.get_pooling_task(tasks)
        labels = 0 if model_config is None else getattr(model_config.hf_config, "num_labels", 0)
        key = (tuple(sorted(tasks)), pooling, labels)
        arguments = self._base_arguments()
        with self._lock:
            if key not in self._routes:
                self._routes[key] = _build(arguments, tasks, model_config)
            return self._routes[key]


def _build(arguments: Any, tasks: tuple[str, ...], model_config: Any) -> Application:
    theirs = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    theirs.state.args = arguments
    register_api_routers(arguments, theirs, tasks, model_config)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    for route in theirs.routes:
        if isinstance(route, APIRoute) and route.path in PATHS:
            app.router.add_api_route(
                route.path,
                # Without vLLM's wrapper that watches for the client to go: it works in tasks of its own, which
                # live on when ours is cancelled, and the sequence would go on to its end.
                inspect.unwrap(route.endpoint),
                methods=list(route.methods),
                dependencies=route.dependencies,
                response_model=route.response_model,
            )
    if not app.routes:
        raise changed("register_api_routers")
    init_exception_handler(app)
    app.add_exception_handler(HTTPException, http_exception_handler)  # theirs misses the router's own "not found"
    built: Application = app.build_middleware_stack()
    return built


def tool_parser_for(chat_template: str | None) -> str:
    """Choose vLLM's tool parser by how the model's chat template writes tool calls; hermes when it does not say."""
    return next((parser for sign, parser in _PARSERS if sign in (chat_template or "")), "hermes")


def _chat_template(engine: Any) -> str | None:
    template = getattr(engine.renderer.tokenizer, "chat_template", None)
    return template if isinstance(template, str) else None
