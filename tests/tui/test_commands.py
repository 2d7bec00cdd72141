import pytest

from tui.commands import SCREENS, Do, Go, Help, Leave, SortBy, completions, parse


@pytest.mark.parametrize("text, wanted", [
    ("devices", Go("devices")), (" models ", Go("models")), ("clu", Go("cluster")), ("ps", Go("replicas")),
    ("load org/name", Do("load", "org/name")), ("drain gpu0", Do("drain", "gpu0")), ("sort size", SortBy("size")),
    ("q", Leave()), ("help", Help()), ("top", Go("top")),
])  # fmt: skip
def test_what_can_be_typed(text, wanted):
    assert parse(text) == wanted


@pytest.mark.parametrize("text, words", [
    ("modles", "did you mean models"), ("load", "cannot load: say what"), ("drain", "gpu0"), ("c", "cannot do 'c'"),
    ("", "cannot do ''"), ("xyzzy 1", "cannot do 'xyzzy 1'"),
])  # fmt: skip
def test_what_cannot_is_told_what_there_is(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)


def test_screens_have_the_keys_one_to_nine():
    assert len(SCREENS) == 9
    assert completions("de") == ["devices"]
    assert completions("") == []


def test_heliosctl_names_the_same_screens():
    from heliosctl.parser import build_parser

    args = build_parser().parse_args(["top", "--screen", SCREENS[-1]])
    assert args.screen == SCREENS[-1]
    with pytest.raises(SystemExit):
        build_parser().parse_args(["top", "--screen", "none"])
    for screen in SCREENS:
        assert build_parser().parse_args(["top", "--screen", screen]).screen == screen
