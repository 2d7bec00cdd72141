from heliosd.wire import MemberView


def test_cluster_ls_shows_the_members(daemon, ctl):
    daemon.members.append(MemberView(name="node-b", state="alive", address="10.0.0.2:7946"))
    lines = ctl("cluster", "ls").out.splitlines()
    assert lines[2].split() == ["node-b", "alive", "10.0.0.2:7946", "0"]


def test_a_new_keys_secret_is_the_only_word_on_stdout(daemon, ctl):
    ended = ctl("keys", "add", "laptop", "--admin")
    assert ended.out == "helios-secret\n"
    assert "not shown again" in ended.err
    assert daemon.asked[-1][3] == {"name": "laptop", "admin": True}


def test_keys_are_listed_and_removed(daemon, ctl):
    ctl("keys", "add", "laptop")
    assert ctl("keys", "ls").out.splitlines()[1].split()[:2] == ["laptop", "no"]
    assert ctl("keys", "rm", "laptop").code == 0
    assert ctl("keys", "rm", "laptop").code == 4
