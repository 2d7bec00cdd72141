"""On what terms a request waits: by its API key and its headers, or by what a peer says of its own client."""

import math
from collections.abc import Mapping

from heliosd.api.work import Work
from heliosd.core.claim import Claim
from heliosd.core.messages import Priority
from heliosd.core.names import PeerName
from heliosd.core.units import parse_seconds
from heliosd.errors import BadRequest
from heliosd.lease import PeerLease
from heliosd.state.keys import Key

PRIORITY_HEADER = "x-helios-priority"
"""`low`, `normal` or `high`. Lowers the class of the key, never raises it; who needs no key may say any."""
DEADLINE_HEADER = "x-helios-deadline"
"""The longest wait for a model, such as `30s`; at most `queue.timeout_s`."""
KEY_HEADER = "x-helios-account"
"""From a peer only: the id of its client's key."""
SHARE_HEADER = "x-helios-share"
"""From a peer only: the fair share of that key."""
HEADERS = frozenset({PRIORITY_HEADER, DEADLINE_HEADER, KEY_HEADER, SHARE_HEADER})

MOST_SHARE = 1000.0
LEAST_SHARE = 0.001


def claim_of(headers: Mapping[str, str], work: Work, *, key: Key | None, peer: PeerName | None) -> Claim:
    """What a request claims. Raises BadRequest for a header that cannot be read.

    A peer has settled the class already, from its client's key, and its word is taken.
    """
    wished = _priority(headers)
    if peer is not None:
        account, share = headers.get(KEY_HEADER, ""), _share(headers)
        return Claim(
            account, share, Priority.NORMAL if wished is None else wished, None, True, work.tokens, work.prefix
        )
    if key is None:
        return Claim(wished=wished, work_tokens=work.tokens, prefix=work.prefix)
    own = None if key.priority is Priority.NORMAL else key.priority
    return Claim(key.id, key.share, own, wished, True, work.tokens, work.prefix)


def deadline_of(headers: Mapping[str, str]) -> float | None:
    """How long the request wants to wait, in seconds; None: it does not say. Raises BadRequest."""
    text = headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    try:
        span_s = parse_seconds(text)
    except ValueError as error:
        raise BadRequest(f"cannot accept the header X-Helios-Deadline: {error}", param=DEADLINE_HEADER) from error
    if span_s <= 0 or not math.isfinite(span_s):
        raise BadRequest(
            f"cannot accept the header X-Helios-Deadline: {text!r} leaves no time to wait; say how long, such as 30s",
            param=DEADLINE_HEADER,
        )
    return span_s


def headers_for_peer(lease: PeerLease) -> tuple[tuple[str, str], ...]:
    """What tells the peer the terms that were settled here."""
    terms = lease.terms
    headers = [(PRIORITY_HEADER, terms.priority.name.lower()), (SHARE_HEADER, repr(terms.share))]
    if terms.key:
        headers.append((KEY_HEADER, terms.key))
    if lease.left_s is not None:
        headers.append((DEADLINE_HEADER, f"{max(lease.left_s, 0.001):.3f}"))
    return tuple(headers)


def _priority(headers: Mapping[str, str]) -> Priority | None:
    text = headers.get(PRIORITY_HEADER)
    if text is None:
        return None
    try:
        return Priority[text.strip().upper()]
    except KeyError as error:
        raise BadRequest(
            f"cannot accept the header X-Helios-Priority: {text!r} is no class; it is low, normal or high",
            param=PRIORITY_HEADER,
        ) from error


def _share(headers: Mapping[str, str]) -> float:
    text = headers.get(SHARE_HEADER, "1")
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not LEAST_SHARE <= share <= MOST_SHARE:
        raise BadRequest(
            f"cannot accept the header X-Helios-Share: {text!r} is no number from {LEAST_SHARE} to {MOST_SHARE:.0f}",
            param=SHARE_HEADER,
        )
    return share
