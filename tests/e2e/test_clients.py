"""The clients people have, unmodified, against one daemon with real models: what they ask for and what they get."""

import json
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.e2e.conftest import SMOL, TINY
from tests.e2e.daemon import Daemon, heliosd

pytestmark = pytest.mark.slow

EMBEDDER = "test/other"
CONFIG = f"""
[devices]
host_memory = "60%"
[engines]
kv_cache = "64MiB"
[api]
max_body_bytes = "1MiB"
[models."{SMOL}"]
max_model_len = 2048
engine_args = {{enable_auto_tool_choice = true, tool_call_parser = "hermes"}}
[models."{EMBEDDER}"]
engine_args = {{runner = "pooling", convert = "embed"}}
"""
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
COLD = {"temperature": 0}  # the newest client of Anthropic has no argument for it
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def daemon(stock: Path) -> Iterator[Daemon]:
    with heliosd(config=CONFIG, stock=stock) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> openai.OpenAI:
    return daemon.openai()


@pytest.fixture(scope="module")
def claude(daemon: Daemon) -> anthropic.Anthropic:
    return daemon.anthropic()


# ---- chat --------------------------------------------------------------------


def test_chat(client: openai.OpenAI):
    answer = client.chat.completions.create(model=SMOL, messages=FRANCE, temperature=0, max_tokens=20)
    assert "Paris" in answer.choices[0].message.content
    assert answer.usage.completion_tokens <= 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == SMOL


def test_chat_by_alias_gives_the_same(client: openai.OpenAI):
    by_name, by_alias = (
        client.chat.completions.create(model=name, messages=FRANCE, temperature=0, max_tokens=12)
        for name in (SMOL, "smollm2")
    )
    assert by_name.choices[0].message.content == by_alias.choices[0].message.content


def test_chat_as_a_stream_with_its_usage(client: openai.OpenAI):
    whole = client.chat.completions.create(model=SMOL, messages=FRANCE, temperature=0, max_tokens=20)
    chunks = list(
        client.chat.completions.create(
            model=SMOL, messages=FRANCE, temperature=0, max_tokens=20, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] in ("stop", "length")


def test_the_first_token_comes_before_the_last(client: openai.OpenAI):
    with client.chat.completions.with_streaming_response.create(
        model=TINY, messages=FRANCE, max_tokens=200, stream=True, extra_body={"ignore_eos": True}
    ) as answer:
        pieces = list(answer.iter_bytes())
    assert len(pieces) > 20, "it was held back and sent at once"
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"].startswith("t-")


def test_json_schema(client: openai.OpenAI):
    class Capital(BaseModel):
        country: str
        city: str

    answer = client.chat.completions.parse(
        model=SMOL, messages=FRANCE, temperature=0, max_tokens=60, response_format=Capital
    )
    assert isinstance(answer.choices[0].message.parsed, Capital)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_tools_that_must_be_called(client: openai.OpenAI, choice: object):
    answer = client.chat.completions.create(
        model=SMOL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice=choice,
        temperature=0,
        max_tokens=100,
    )
    (call, *_) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)


def test_tools_that_may_be_called(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model=SMOL, messages=FRANCE, tools=[WEATHER], tool_choice="auto", temperature=0, max_tokens=40
    )
    message = answer.choices[0].message
    assert message.content or message.tool_calls
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")


def test_logprobs(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model=SMOL, messages=FRANCE, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3
    )
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == 4
    for token in tokens:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        assert token.logprob == max(each.logprob for each in token.top_logprobs), "temperature 0 takes the likeliest"


def test_two_answers(client: openai.OpenAI):
    answer = client.chat.completions.create(model=SMOL, messages=FRANCE, n=2, temperature=1.5, seed=1, max_tokens=24)
    first, second = answer.choices
    assert (first.index, second.index) == (0, 1)
    assert first.message.content != second.message.content


def test_stop(client: openai.OpenAI):
    answer = client.chat.completions.create(model=SMOL, messages=FRANCE, temperature=0, max_tokens=40, stop=["Paris"])
    assert "Paris" not in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_makes_it_the_same_again(client: openai.OpenAI):
    def ask(seed: int) -> str:
        answer = client.chat.completions.create(model=SMOL, messages=FRANCE, temperature=1.5, seed=seed, max_tokens=24)
        return answer.choices[0].message.content

    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(1, 5)}) > 1


# ---- completions, responses, embeddings ---------------------------------------


def test_completions_echo_and_logprobs(client: openai.OpenAI):
    answer = client.completions.create(
        model=SMOL, prompt="The capital of France is", max_tokens=4, temperature=0, echo=True, logprobs=2
    )
    (choice,) = answer.choices
    assert choice.text.startswith("The capital of France is") and "Paris" in choice.text
    assert len(choice.logprobs.tokens) == answer.usage.total_tokens == len(choice.logprobs.token_logprobs)
    assert choice.logprobs.token_logprobs[0] is None, "nothing comes before the first token"


def test_completions_of_several_prompts_as_a_stream(client: openai.OpenAI):
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(model=TINY, prompt=["one", "two"], max_tokens=5, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert all(texts.values())


def test_responses(client: openai.OpenAI):
    answer = client.responses.create(
        model=SMOL, input="What is the capital of France?", temperature=0, max_output_tokens=20
    )
    assert "Paris" in answer.output_text
    assert answer.usage.output_tokens > 0


def test_responses_as_a_stream(client: openai.OpenAI):
    events = list(
        client.responses.create(
            model=SMOL, input="What is the capital of France?", temperature=0, max_output_tokens=20, stream=True
        )
    )
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert "Paris" in text


def test_embeddings(client: openai.OpenAI):
    answer = client.embeddings.create(model=EMBEDDER, input=["a cat", "a cat", "the national debt"])
    first, same, other = (item.embedding for item in answer.data)
    assert first == pytest.approx(same, abs=1e-3) and len(first) == len(other) == 64
    assert first != pytest.approx(other, abs=1e-3)
    assert sum(number**2 for number in first) == pytest.approx(1, abs=1e-2)


def test_scores_and_ranks_of_an_embedder(daemon: Daemon, client: openai.OpenAI):
    asked = {"model": EMBEDDER, "text_1": "a cat", "text_2": ["a cat", "the national debt"]}
    same, other = httpx.post(f"{daemon.url}/v1/score", json=asked, timeout=60).json()["data"]
    assert same["score"] == pytest.approx(1, abs=1e-2) and other["score"] < same["score"]
    asked = {"model": EMBEDDER, "query": "a cat", "documents": ["the national debt", "a cat"]}
    ranked = httpx.post(f"{daemon.url}/v1/rerank", json=asked, timeout=60).json()["results"]
    assert [each["index"] for each in ranked] == [1, 0]


def test_a_chat_with_an_embedder_is_refused(client: openai.OpenAI):
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=EMBEDDER, messages=FRANCE)
    assert caught.value.code == "not_supported", caught.value.response.text


# ---- models, tokens -----------------------------------------------------------


def test_models(client: openai.OpenAI):
    assert {model.id for model in client.models.list()} == {SMOL, TINY, EMBEDDER}
    assert client.models.retrieve(SMOL).id == SMOL
    assert client.models.retrieve("smollm2").owned_by == "helios"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("no/such")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_tokens_there_and_back(daemon: Daemon, prefix: str):
    there = httpx.post(f"{daemon.url}{prefix}/tokenize", json={"model": SMOL, "prompt": "The capital"}).json()
    assert there["count"] == len(there["tokens"]) > 1
    back = httpx.post(f"{daemon.url}{prefix}/detokenize", json={"model": SMOL, "tokens": there["tokens"]}).json()
    assert "The capital" in back["prompt"]


# ---- Anthropic -----------------------------------------------------------------


def test_anthropic_messages(claude: anthropic.Anthropic):
    answer = claude.messages.create(model=SMOL, max_tokens=20, messages=FRANCE, extra_body=COLD)
    assert "Paris" in answer.content[0].text
    assert answer.usage.output_tokens > 0 and answer.stop_reason in ("end_turn", "max_tokens")


def test_anthropic_messages_as_a_stream(claude: anthropic.Anthropic):
    with claude.messages.stream(model=SMOL, max_tokens=20, messages=FRANCE, extra_body=COLD) as stream:
        assert "Paris" in "".join(stream.text_stream)
        assert stream.get_final_message().usage.output_tokens > 0


def test_anthropic_counts_tokens(claude: anthropic.Anthropic):
    short = claude.messages.count_tokens(model=SMOL, messages=FRANCE).input_tokens
    long = claude.messages.count_tokens(model=SMOL, messages=FRANCE, system="Be brief.").input_tokens
    assert short > 0 and short != long


def test_anthropic_models_and_errors(claude: anthropic.Anthropic):
    assert {model.id for model in claude.models.list()} == {SMOL, TINY, EMBEDDER}
    assert claude.models.retrieve("smollm2").type == "model"
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(model="no/such", max_tokens=5, messages=FRANCE)
    assert caught.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(model=SMOL, max_tokens=5, messages=[{"role": "user", "content": "word " * 5000}])
    assert caught.value.body["error"]["type"] == "invalid_request_error"


# ---- what is refused -------------------------------------------------------------


def test_an_unknown_model_is_refused_with_the_nearest(client: openai.OpenAI):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="SmolLM2-135M-Instrukt", messages=FRANCE)
    assert caught.value.code == "model_not_found" and caught.value.type == "invalid_request_error"
    assert f"did you mean {SMOL}" in caught.value.message


@pytest.mark.parametrize("name", ["", "a b", "../../etc/passwd", "x" * 5000, "org/name@", "\u0000"])
def test_a_name_that_is_none_is_refused(client: openai.OpenAI, name: str):
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
        client.chat.completions.create(model=name, messages=FRANCE)
    assert caught.value.code in ("bad_model_name", "model_not_found", "missing_model")
    assert len(caught.value.message) < 6000


@pytest.mark.parametrize("stream", [False, True])
def test_a_context_that_is_too_long_is_refused(client: openai.OpenAI, stream: bool):
    long = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=SMOL, messages=long, stream=stream)
    assert caught.value.code == "context_length_exceeded" and "2048" in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=SMOL, prompt="word " * 5000, stream=stream)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"model": ', b"[]", b"null", b'{"model": 3}', b"\xff\xfe", b'{"messages": []}', b"{" * 100_000],
)
def test_what_is_no_request_is_refused(daemon: Daemon, body: bytes):
    for path in ("chat/completions", "completions", "embeddings", "responses", "messages"):
        answer = httpx.post(f"{daemon.url}/v1/{path}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (path, answer.text)
        error = answer.json()["error"]
        assert error["code"] in ("malformed_json", "missing_model"), error
        assert error["message"].startswith("cannot")


def test_what_only_the_engine_can_see_is_refused_too(client: openai.OpenAI):
    for wrong in ({"temperature": -1}, {"n": 0}, {"max_tokens": -5}, {"top_logprobs": 99}, {"tool_choice": "nope"}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=SMOL, messages=FRANCE, **wrong)
        assert isinstance(caught.value.code, str) and caught.value.code, wrong
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=SMOL, messages=[{"role": "user", "content": 5}])


def test_a_body_that_is_too_large_is_refused(client: openai.OpenAI):
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=SMOL, messages=[{"role": "user", "content": "x" * (1 << 20)}])
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")


def test_a_path_that_is_none_is_refused(daemon: Daemon):
    answer = httpx.post(f"{daemon.url}/v1/chat/completion", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_path")
    answer = httpx.get(f"{daemon.url}/v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_nothing_of_all_this_broke_anything(daemon: Daemon):
    assert "level=error" not in daemon.log() and "Traceback" not in daemon.log(), daemon.log()
    assert {replica["state"] for replica in daemon.replicas()} == {"ready"}
    assert sum(replica["leases"] for replica in daemon.replicas()) == 0
    daemon.until(lambda: daemon.metric("vllm:num_requests_running") == 0, 5, "sequences are left")
    kinds = [event["kind"] for event in daemon.events(limit=10_000)]
    assert kinds.count("start") == kinds.count("ready") == len(daemon.replicas())
