"""Several engines' metrics become one text that Prometheus accepts."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from heliosd.telemetry.merge import merge_texts


def engine_text(model: str, tokens: int) -> str:
    registry = CollectorRegistry()
    Counter("vllm:generation_tokens", "Tokens.", ["model_name", "engine"], registry=registry).labels(model, "0").inc(
        tokens
    )
    Histogram("vllm:ttft_seconds", "First token.", ["model_name"], registry=registry).labels(model).observe(0.2)
    Counter("vllm:plain", "No labels at all.", registry=registry).inc(tokens)
    return generate_latest(registry).decode()


def families(text: str) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    return {f.name: [(s.name, s.labels, s.value) for s in f.samples] for f in text_string_to_metric_families(text)}


def test_each_family_is_described_once_and_keeps_all_series() -> None:
    text = merge_texts([("r1", engine_text("a", 3)), ("r2", engine_text("b", 5))])
    assert text.count("# TYPE vllm:generation_tokens_total counter") == 1
    assert text.count("# TYPE vllm:ttft_seconds histogram") == 1
    found = families(text)["vllm:generation_tokens"]
    totals = [(labels, value) for name, labels, value in found if name.endswith("_total")]
    assert totals == [
        ({"replica": "r1", "model_name": "a", "engine": "0"}, 3.0),
        ({"replica": "r2", "model_name": "b", "engine": "0"}, 5.0),
    ]


def test_two_replicas_of_one_model_are_told_apart() -> None:
    lines = merge_texts([("r1", engine_text("a", 3)), ("r2", engine_text("a", 3))]).splitlines()
    series = [line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_series_without_labels_get_one() -> None:
    assert 'vllm:plain_total{replica="r1"} 7.0' in merge_texts([("r1", engine_text("a", 7))])


def test_label_values_with_braces_spaces_and_quotes_survive() -> None:
    odd = 'a {x} "y" \\z'
    samples = families(merge_texts([('r"1', engine_text(odd, 1))]))["vllm:generation_tokens"]
    assert samples[0][1]["model_name"] == odd
    assert samples[0][1]["replica"] == 'r"1'


def test_families_of_helios_itself_are_left_out() -> None:
    text = "# HELP process_cpu x\n# TYPE process_cpu gauge\nprocess_cpu 1\n"
    text += "# HELP vllm:a x\n# TYPE vllm:a gauge\nvllm:a 1\n"
    assert list(families(merge_texts([("r1", text)]))) == ["vllm:a"]


def test_nothing_in_nothing_out() -> None:
    assert merge_texts([]) == ""
    assert merge_texts([("r1", "")]) == ""


def test_a_replica_label_that_is_there_already_is_not_doubled() -> None:
    text = '# TYPE vllm:a gauge\nvllm:a{model="m",replica="r9"} 1\nvllm:a{replica="r9"} 2\n'
    assert [labels for _, labels, _ in families(merge_texts([("r1", text)]))["vllm:a"]] == [
        {"model": "m", "replica": "r9"},
        {"replica": "r9"},
    ]
