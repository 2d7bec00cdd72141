import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.identity import LIFETIME_S, SKEW_S, derive_key, sign, verify
from heliosd.core.names import PeerName

KEY = b"1" * 32
NOW = 1_700_000_000.0
A, B, C = PeerName("a"), PeerName("b"), PeerName("c")


def token(*, key=KEY, me=A, target=B, method="POST", path="/v1/x?y=1", now=NOW):
    return sign(key, me=me, target=target, method=method, path=path, now=now)


def seen_by(text, *, key=KEY, me=B, method="POST", path="/v1/x?y=1", now=NOW):
    return verify(key, text, me=me, method=method, path=path, now=now)


def test_the_target_learns_who_asks():
    assert seen_by(token()) == A


@pytest.mark.parametrize(
    "other",
    [{"key": b"2" * 32}, {"me": C}, {"method": "GET"}, {"path": "/v1/x?y=2"}, {"path": "/v1/x"}],
    ids=["another key", "another target", "another method", "another query", "no query"],
)
def test_a_token_is_good_for_one_key_target_and_request_only(other):
    assert seen_by(token(), **other) is None


def test_a_token_runs_out():
    last = NOW + LIFETIME_S + SKEW_S - 1
    assert seen_by(token(), now=last) == A
    assert seen_by(token(), now=last + 1) is None


def test_a_peer_whose_clock_is_ahead_is_believed_within_the_window_only():
    assert seen_by(token(), now=NOW - SKEW_S) == A
    assert seen_by(token(), now=NOW - SKEW_S - 2) is None


def test_a_later_expiry_written_into_a_token_is_noticed():
    scheme, name, expiry, mac = token().split(".")
    assert seen_by(f"{scheme}.{name}.{int(expiry) + 1}.{mac}") is None


def test_another_name_written_into_a_token_is_noticed():
    scheme, _, expiry, mac = token().split(".")
    name = base64.urlsafe_b64encode(b"c").rstrip(b"=").decode()
    assert seen_by(f"{scheme}.{name}.{expiry}.{mac}") is None


@given(st.text(max_size=200))
def test_nonsense_is_refused_and_never_raises(text):
    assert seen_by(text) is None


@given(st.data())
def test_no_single_changed_character_is_accepted(data):
    good = token()
    at = data.draw(st.integers(0, len(good) - 1))
    changed = good[:at] + data.draw(st.characters(max_codepoint=126, min_codepoint=33)) + good[at + 1 :]
    # The last character of base64 has bits that mean nothing; any other change must be noticed.
    if changed != good and at != len(good) - 1 and good[at + 1 : at + 2] != ".":
        assert seen_by(changed) is None


def test_a_secret_gives_every_node_the_same_key_and_other_secrets_another():
    assert derive_key("correct horse battery\n") == derive_key("correct horse battery")
    assert derive_key("correct horse battery") != derive_key("correct horse batterz")
    assert len(derive_key("x" * 44)) == 32


def test_a_letter_of_the_other_alphabet_is_another_letter():
    good = token()
    for ours, theirs in (("-", "+"), ("_", "/")):
        if ours in good:
            assert seen_by(good.replace(ours, theirs)) is None
