import pytest

from heliosd.wire import MemberView


def test_cluster_ls_shows_the_members(daemon, ctl):
    daemon.members.append(MemberView(name="node-b", state="alive", address="10.0.0.2:7946"))
    lines = ctl("cluster", "ls").out.splitlines()
    assert lines[2].split() == ["node-b", "alive", "10.0.0.2:7946", "0", "0", "-", "0"]


def test_cluster_ls_shows_what_the_members_tell_of_their_load(daemon, ctl):
    told = {"models": ["a", "b"], "ready": ["a"], "free_bytes": 12 * 2**30, "queue_length": 4}
    daemon.members.append(MemberView(name="node-b", state="alive", address="10.0.0.2:7946", **told))
    line = ctl("cluster", "ls").out.splitlines()[2]
    assert line.split() == ["node-b", "alive", "10.0.0.2:7946", "2", "1", "12.0", "GiB", "4"]


def test_a_new_keys_secret_is_the_only_word_on_stdout(daemon, ctl):
    ended = ctl("keys", "add", "laptop", "--admin")
    assert ended.out == "helios-secret\n"
    assert "not shown again" in ended.err
    assert daemon.asked[-1][3] == {"name": "laptop", "admin": True}


def test_keys_are_listed_and_removed(daemon, ctl):
    ctl("keys", "add", "laptop")
    assert ctl("keys", "ls").out.splitlines()[1].split()[:4] == ["laptop", "no", "normal", "1"]
    assert ctl("keys", "rm", "laptop").code == 0
    assert ctl("keys", "rm", "laptop").code == 4


def test_a_key_gets_a_class_and_a_share_and_other_ones_later(daemon, ctl):
    ctl("keys", "add", "batch", "--priority", "low", "--share", "0.5")
    assert daemon.asked[-1][3] == {"name": "batch", "admin": False, "priority": "low", "share": 0.5}
    lines = ctl("keys", "set", "batch", "--share", "2").out.splitlines()
    assert daemon.asked[-1][:2] == ("PATCH", "/helios/v1/keys/batch")
    assert daemon.asked[-1][3] == {"share": 2.0}
    assert lines[0].split() == ["NAME", "ADMIN", "PRIORITY", "SHARE", "BUDGET", "TOKENS/DAY", "CREATED"]
    assert lines[1].split()[:4] == ["batch", "no", "low", "2"]
    assert ctl("keys", "set", "stranger", "--share", "2").code == 4


def test_a_key_gets_a_budget_and_loses_it(daemon, ctl):
    ctl("keys", "add", "batch")
    lines = ctl("keys", "set", "batch", "--budget", "100/month", "--tokens-per-day", "1e6").out.splitlines()
    assert daemon.asked[-1][3] == {"budget": 100.0, "budget_period": "month", "tokens_per_day": 1_000_000}
    assert lines[1].split()[4:6] == ["100/month", "1,000,000"]
    lines = ctl("keys", "set", "batch", "--budget", "none", "--tokens-per-day", "none").out.splitlines()
    assert lines[1].split()[4:6] == ["-", "-"]


@pytest.mark.parametrize(
    "words",
    [
        *([], ["--share", "0"], ["--share", "lots"], ["--priority", "urgent"]),
        *(["--budget", "100"], ["--budget", "x/day"], ["--budget", "5/week"]),
        *(["--tokens-per-day", "0"], ["--tokens-per-day", "1.5"], ["--tokens-per-day", "many"]),
    ],
)
def test_terms_that_make_no_sense_are_a_usage_error(daemon, ctl, words):
    ctl("keys", "add", "laptop")
    ended = ctl("keys", "set", "laptop", *words)
    assert ended.code == 2
    assert "cannot" in ended.err or "choose from" in ended.err
