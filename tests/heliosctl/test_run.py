import io
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from heliosctl.answer import Listener, Wishes, ask
from heliosctl.client import Client
from heliosctl.place import UnixPlace
from heliosctl.repl import Repl
from tests.heliosctl.samples import replica
from tests.heliosctl.stand_in_replies import Refusal


def test_the_answer_is_data_and_the_figures_are_talk(daemon, ctl):
    ended = ctl("run", "org/small", "What is the capital of France?")
    assert ended.code == 0
    assert ended.out == "The capital of France is Paris.\n"
    assert ended.err.startswith("first token ")
    assert "tokens/s" in ended.err
    assert "7 tokens in" in ended.err


def test_options_reach_the_engine(daemon, ctl, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    ctl("run", "org/small", "hello", "you", "--system", "Be brief.", "--temperature", "0", "--max-tokens", "9",
        "--seed", "4", "--json-schema", str(schema))  # fmt: skip
    body = daemon.asked[-1][3]
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello you"},
    ]
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.0, 9, 4)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize("content", [None, "no json", "[]"])
def test_a_bad_schema_is_a_usage_error(daemon, ctl, tmp_path, content):
    schema = tmp_path / "schema.json"
    if content is not None:
        schema.write_text(content)
    assert ctl("run", "org/small", "hello", "--json-schema", str(schema)).code == 2


def test_a_piped_text_is_the_prompt(daemon, ctl, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is it?\n"))
    assert ctl("run", "org/small").code == 0
    assert daemon.asked[-1][3]["messages"][0]["content"] == "What is it?"


def test_an_empty_pipe_is_a_usage_error(daemon, ctl, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert ctl("run", "org/small").code == 2


def test_a_model_without_a_chat_template_completes(daemon, ctl):
    daemon.chats = False
    ended = ctl("run", "org/small", "Once upon", "--system", "A story.")
    assert ended.out == "The capital of France is Paris.\n"
    assert "cannot chat" in ended.err
    assert daemon.asked[-1][1] == "/v1/completions"
    assert daemon.asked[-1][3]["prompt"] == "A story.\n\nOnce upon"


def test_other_refusals_are_not_tried_again(daemon, ctl):
    daemon.refusals["POST /v1/chat/completions"] = Refusal(400, "context_length_exceeded", "cannot take 99999 tokens")
    ended = ctl("run", "org/small", "long")
    assert (ended.code, ended.out) == (1, "")
    assert "99999" in ended.err
    assert [path for _, path, _, _ in daemon.asked] == ["/v1/chat/completions"]


def test_an_engine_that_dies_while_it_answers_is_told(daemon, ctl):
    daemon.cut = True
    ended = ctl("run", "org/small", "hello")
    assert ended.code == 1
    assert "cannot give the whole answer" in ended.err


def test_verbose_tells_how_the_model_was_started(daemon, ctl):
    daemon.note("grant", "t-1 gets r1", ticket="t-1", replica="r1")
    daemon.replicas = [replica("r0"), replica(started_at=time.time())]
    err = ctl("run", "org/small", "hello", "--verbose").err
    assert "r1 started in 1.5 s: fork 40 ms, load 1.1 s, kv cache 360 ms" in err
    assert "predicted 1.6 GiB, measured 1.5 GiB" in err


def test_verbose_does_not_claim_a_start_that_was_long_ago(daemon, ctl):
    err = ctl("run", "org/small", "hello", "--verbose").err
    assert "r1 was running already" in err
    assert "started in" not in err


def test_comments_that_keep_the_connection_alive_are_no_words(daemon, socket_path):
    daemon.comments = ["keep-alive"]
    heard: list[str] = []
    client = Client(UnixPlace(socket_path))
    listener = Listener(heard.append, heard.append)
    answer = ask(client, "org/small", [{"role": "user", "content": "hi"}], Wishes(), listener, chat=True)
    assert heard == ["The capital", " of France", " is Paris."]
    assert (answer.text, answer.tokens, answer.ticket, answer.chat) == (
        "The capital of France is Paris.", 7, "t-1", True,
    )  # fmt: skip
    assert 0 < answer.first_token_s <= answer.total_s


def test_what_is_waited_for_is_said_on_a_line_of_the_terminal_that_goes_away(daemon, ctl, monkeypatch):
    daemon.comments = ['helios state=queued position=1 eta=12 reason="r3 is starting"']
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ended = ctl("run", "org/small", "hello")
    line = "\r\x1b[K"
    told = "waiting: 1 before it, about 12 s: r3 is starting"
    assert ended.err.startswith(f"{line}asking org/small …{line}{told}{line}first token")
    assert ended.out == "The capital of France is Paris.\n"


def test_time_to_the_first_token_counts_from_the_first_asking(daemon, socket_path):
    daemon.chats, daemon.start_s = False, 0.05
    listener = Listener(lambda word: None, lambda word: None)
    talk = [{"role": "user", "content": "hi"}]
    answer = ask(Client(UnixPlace(socket_path)), "org/small", talk, Wishes(), listener, chat=True)
    assert not answer.chat
    assert answer.first_token_s >= 0.05


def conversation(daemon, socket_path, capsys, *lines, **options):
    said = iter(lines)

    def read(prompt: str) -> str:
        try:
            line = next(said)
        except StopIteration:
            raise EOFError from None
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    code = Repl(Client(UnixPlace(socket_path)), "org/small", Wishes(), read=read, **options).run()
    captured = capsys.readouterr()
    return code, captured.out, captured.err, [body for _, path, _, body in daemon.asked if "completions" in path]


@pytest.fixture(autouse=True)
def state_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_a_conversation_remembers_until_it_is_cleared(daemon, socket_path, capsys):
    code, out, _, bodies = conversation(daemon, socket_path, capsys, "one", "two", "/clear", "three", "/bye", "never")
    assert code == 0
    assert out == "The capital of France is Paris.\n" * 3
    assert [len(body["messages"]) for body in bodies] == [1, 3, 1]
    assert bodies[1]["messages"][1] == {"role": "assistant", "content": "The capital of France is Paris."}


def test_settings_can_be_changed_while_talking(daemon, socket_path, capsys):
    lines = ["/set temperature 0.5", "/set system Be kind.", "/set seed x", "/set colour red", "/nonsense", "hello"]
    _, _, err, bodies = conversation(daemon, socket_path, capsys, *lines, "/set system", "again")
    assert bodies[0]["temperature"] == 0.5
    assert bodies[0]["messages"][0] == {"role": "system", "content": "Be kind."}
    assert bodies[1]["messages"][0]["role"] == "user"
    assert "cannot set seed to 'x'" in err
    assert "cannot set colour" in err
    assert "cannot do /nonsense" in err


def test_several_lines_are_one_prompt(daemon, socket_path, capsys):
    *_, bodies = conversation(daemon, socket_path, capsys, '"""first', "second", 'third"""')
    assert bodies[0]["messages"][0]["content"] == "first\nsecond\nthird"


def test_an_error_or_ctrl_c_does_not_end_the_conversation(daemon, socket_path, capsys):
    daemon.refusals["POST /v1/chat/completions"] = Refusal(502, "engine_failed", "cannot answer", "boom")
    code, _, err, bodies = conversation(daemon, socket_path, capsys, "one", KeyboardInterrupt, "two")
    assert code == 0
    assert err.count("cannot answer\ncause: boom") == 2
    assert [len(body["messages"]) for body in bodies] == [1, 1]


def test_a_completing_model_is_not_asked_to_chat_each_time(daemon, socket_path, capsys):
    daemon.chats = False
    conversation(daemon, socket_path, capsys, "one", "two")
    assert [path for _, path, _, _ in daemon.asked] == ["/v1/chat/completions", "/v1/completions", "/v1/completions"]


def test_ctrl_c_on_a_terminal_stops_the_answer_and_frees_the_engine(daemon, socket_path, state_home):
    daemon.endless = True
    terminal, its = pty.openpty()
    words = [sys.executable, "-m", "heliosctl", "--socket", str(socket_path), "run", "org/small"]
    env = os.environ | {"TERM": "dumb"}
    child = subprocess.Popen(words, stdin=its, stdout=its, stderr=its, env=env, start_new_session=True)
    os.close(its)
    try:
        expect(terminal, b">>> ")
        os.write(terminal, b"hello\n")
        expect(terminal, b"is Paris.")
        child.send_signal(signal.SIGINT)
        expect(terminal, b"(stopped)")
        assert daemon.left.wait(5)
        daemon.endless = False
        expect(terminal, b">>> ")
        os.write(terminal, b"again\n")
        expect(terminal, b"tokens in")
        expect(terminal, b">>> ")
        os.write(terminal, b"/bye\n")
        assert child.wait(5) == 0
        assert "hello" in (state_home / "helios" / "history").read_text()
    finally:
        child.kill()
        child.wait()
        os.close(terminal)
    assert json.dumps(daemon.asked[-1][3]["messages"]).count("hello") == 0  # the stopped turn is not remembered


def expect(terminal: int, wanted: bytes) -> None:
    seen = b""
    while wanted not in seen:
        seen += os.read(terminal, 1)
