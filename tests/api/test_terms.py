"""Keys, headers and peers make the terms on which a request waits; what cannot be read is refused in clear words."""

import json

import pytest

from heliosd.api.terms import claim_of, deadline_of, headers_for_peer
from heliosd.api.work import Work
from heliosd.core.claim import Claim
from heliosd.core.messages import Priority, Terms
from heliosd.core.names import PeerName, Ticket
from heliosd.errors import BadRequest
from heliosd.lease import PeerLease
from tests.api.world import World

LOW, NORMAL, HIGH = Priority
CHAT = {"model": "tiny", "messages": [{"role": "", "content": "x" * 400}], "max_tokens": 20}
PATH = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("text", "span_s"), [("30s", 30.0), ("5m", 300.0), ("250ms", 0.25), ("1.5", 1.5), (" 2 h ", 7200.0)]
)
def test_a_deadline_has_a_unit_or_is_in_seconds(text: str, span_s: float) -> None:
    assert deadline_of({"x-helios-deadline": text}) == span_s


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "soon", "5 parsecs", "nan", "inf", "9" * 400])
def test_a_deadline_that_is_none(text: str) -> None:
    with pytest.raises(BadRequest, match="cannot accept the header X-Helios-Deadline"):
        deadline_of({"x-helios-deadline": text})


def test_what_a_peer_is_told_comes_back_as_the_same_terms() -> None:
    terms = Terms("key_1", 0.5, LOW, 7, (1, 2))
    headers = dict(headers_for_peer(PeerLease(Ticket("t"), "m", PeerName("p"), terms, 12.5)))
    claim = claim_of(headers, Work(7, (1, 2)), key=None, peer=PeerName("east"))
    assert claim.terms(HIGH) == terms  # what the peer's own model table says comes too late
    assert deadline_of(headers) == 12.5


def test_time_that_is_all_but_over_is_still_some_time() -> None:
    headers = dict(headers_for_peer(PeerLease(Ticket("t"), "m", PeerName("p"), Terms(), 0.0)))
    assert deadline_of(headers) == 0.001


@pytest.mark.parametrize("share", ["0", "-1", "nan", "inf", "much", "1e9"])
def test_a_peers_share_that_is_none(share: str) -> None:
    with pytest.raises(BadRequest, match="X-Helios-Share"):
        claim_of({"x-helios-share": share}, Work(), key=None, peer=PeerName("east"))


async def claimed(it: World, **headers: str) -> tuple[Claim, float | None]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with it.http.post(PATH, json=CHAT, headers=names) as response:
        assert response.status == 200, await response.text()
    return it.node.claims[-1]


async def test_without_keys_a_request_says_its_class_itself(it: World) -> None:
    claim, deadline_s = await claimed(it)
    assert (claim.key, claim.work_tokens, deadline_s) == ("", 120, None)
    assert claim.terms(LOW).priority is LOW
    claim, deadline_s = await claimed(it, X_Helios_Priority="HIGH", X_Helios_Deadline="30s")
    assert claim.terms(LOW).priority is HIGH
    assert deadline_s == 30.0


async def test_a_keys_class_and_share_go_with_its_requests_and_the_header_only_lowers(it: World) -> None:
    key, secret = await it.keys.add("batch", admin=False, priority=LOW, share=0.5)
    claim, _ = await claimed(it, x_api_key=secret, X_Helios_Priority="high")
    assert claim.terms(HIGH) == Terms(key.id, 0.5, LOW, 120)
    await it.keys.change("batch", priority=HIGH)
    assert (await claimed(it, x_api_key=secret))[0].terms(LOW).priority is HIGH
    assert (await claimed(it, x_api_key=secret, X_Helios_Priority="normal"))[0].terms(HIGH).priority is NORMAL
    await it.keys.change("batch", priority=NORMAL)
    assert (await claimed(it, x_api_key=secret))[0].terms(HIGH).priority is HIGH


async def test_a_client_cannot_say_whose_request_it_is_and_a_peer_can(it: World) -> None:
    said = {"X_Helios_Account": "key_rich", "X_Helios_Share": "1000", "X_Helios_Priority": "high"}
    assert (await claimed(it, **said))[0].terms(NORMAL) == Terms("", 1.0, HIGH, 120)
    _, secret = await it.keys.add("ci", admin=False)
    claim, _ = await claimed(it, **said, x_api_key=secret)
    assert claim.terms(NORMAL) == Terms(it.keys.all()[0].id, 1.0, NORMAL, 120)
    claim, deadline_s = await claimed(it, **said, X_Helios_Deadline="3", X_Helios_Peer="good")
    assert claim.terms(LOW) == Terms("key_rich", 1000.0, HIGH, 120)
    assert deadline_s == 3.0


async def test_terms_reach_the_peer_and_never_the_engine(it: World) -> None:
    key, secret = await it.keys.add("ci", admin=False, priority=HIGH, share=2.0)
    said = {"x_api_key": secret, "X_Helios_Priority": "low", "X_Helios_Deadline": "1m", "X_Helios_Account": "other"}
    await claimed(it, **said)
    assert not [name for name, _ in it.engine.seen[0].headers if name.lower().startswith("x-helios")]
    it.node.at_peers["tiny"] = PeerName("east")
    await claimed(it, **said)
    [(_, passed)] = it.peers.passed
    assert {name: value for name, value in passed.headers if name.lower().startswith("x-helios")} == {
        "x-helios-priority": "low",
        "x-helios-share": "2.0",
        "x-helios-account": key.id,
        "x-helios-deadline": "60.000",
    }


@pytest.mark.parametrize(
    ("header", "value"), [("X-Helios-Priority", "urgent"), ("X-Helios-Priority", ""), ("X-Helios-Deadline", "soon")]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_header_that_makes_no_sense_is_refused(it: World, header: str, value: str, stream: bool) -> None:
    async with it.http.post(PATH, json=CHAT | {"stream": stream}, headers={header: value}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "bad_request", header.lower())
    assert error["message"].startswith(f"cannot accept the header {header}")
    assert it.node.leases == []


async def test_vllms_own_priority_in_the_body_is_left_alone(it: World) -> None:
    async with it.http.post(PATH, json=CHAT | {"priority": 5}) as response:
        assert response.status == 200
    assert json.loads(it.engine.seen[0].body)["priority"] == 5
    assert it.node.claims[0][0].wished is None
