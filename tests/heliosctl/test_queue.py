import json

import pytest

from heliosctl.answer import Listener, Wishes, ask
from heliosctl.client import Client
from heliosctl.place import UnixPlace
from heliosctl.queue import held_words
from heliosd.wire import QueueView

ENTRY = QueueView(
    ticket="t-9", model="org/big", waiting_s=2.5, reason="r2 is starting", position=1, eta_s=12.0, priority="high",
    key="laptop", since=1_000_000.0,
)  # fmt: skip


def test_the_queue_shows_who_waits_for_what_and_how_long(daemon, ctl):
    daemon.queue.append(ENTRY)
    lines = ctl("queue").out.splitlines()
    assert lines[0].split() == ["BEFORE", "MODEL", "PRIORITY", "KEY", "SINCE", "ETA", "BECAUSE"]
    assert " ".join(lines[1].split()) == "1 org/big high laptop 2.5 s 12.0 s r2 is starting"
    assert "t-9" in ctl("queue", "-o", "wide").out
    assert json.loads(ctl("queue", "-o", "json").out)["queue"][0]["eta_s"] == 12.0


def test_nobody_waits(daemon, ctl):
    assert len(ctl("queue").out.splitlines()) == 1


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ('helios state=queued position=2 eta=12 reason="r3 is starting"',
         "waiting: 2 before it, about 12 s: r3 is starting"),
        ('helios state=queued position=0 reason="a \\"b\\" = c"', 'waiting: next in line: a "b" = c'),
        ('helios state=starting reason="the node is getting ready"', "waiting: the node is getting ready"),
        ("helios state=new", "waiting"),
        ("helios eta=soon", None),
        ("keep-alive", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_comment_in_words(comment, words):
    assert held_words(comment) == words


def test_what_a_request_waits_for_is_told_before_its_answer(daemon, socket_path):
    daemon.comments = ["keep-alive", 'helios state=queued position=0 eta=3 reason="r3 is starting"']
    heard: list[str] = []
    listener = Listener(heard.append, heard.append, heard.append)
    talk = [{"role": "user", "content": "hi"}]
    answer = ask(Client(UnixPlace(socket_path)), "org/small", talk, Wishes(), listener, chat=True)
    assert heard[0] == "waiting: next in line, about 3 s: r3 is starting"
    assert "".join(heard[1:]) == answer.text
