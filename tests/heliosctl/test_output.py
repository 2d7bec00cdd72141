import yaml
from hypothesis import given
from hypothesis import strategies as st

from heliosctl.output import Column, pairs, table
from heliosctl.times import ago
from heliosctl.yaml_text import to_yaml

COLUMNS = (Column("NAME"), Column("SIZE", right=True), Column("MORE", wide=True))


def test_columns_are_aligned():
    rows = [("a", "1 B", "x"), ("longer", "100 B", "y")]
    assert table(COLUMNS, rows).splitlines() == ["NAME      SIZE", "a          1 B", "longer   100 B"]
    assert table(COLUMNS, rows, wide=True).splitlines()[0] == "NAME      SIZE   MORE"


def test_pairs_leave_out_what_is_empty():
    assert pairs([("name", "x"), ("none", ""), ("longest", "y")]) == "name      x\nlongest   y"


def test_ago():
    assert ago(100.0, now=103.0) == "3.0 s ago"
    assert ago(100.0, now=100.0 + 3 * 86400) == "3 days ago"
    assert ago(100.0, now=99.0) == "0 ms ago"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_yaml_reads_back_as_what_was_written(value):
    # A lone surrogate cannot leave a program as UTF-8, in whatever format.
    value = _without_surrogates(value)
    assert yaml.safe_load(to_yaml(value)) == value


def _without_surrogates(value):
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case list():
            return [_without_surrogates(item) for item in value]
        case dict():
            return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
        case _:
            return value


def test_yaml_is_made_for_reading():
    assert to_yaml({"models": [{"ref": "org/a", "aliases": [], "size": 3, "on": "yes"}]}) == (
        'models:\n  - ref: org/a\n    aliases: []\n    size: 3\n    "on": "yes"\n'
    )
