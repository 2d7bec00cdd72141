"""How a node proves to another that it belongs to the cluster: a short-lived token made with the cluster's key.

The token goes in the header `x-helios-peer` and is good for one target, one method and one request path (with its
query), for half a minute. Clocks may differ by as much again. It proves that the sender has the key, under the name
it claims: every holder of the key is trusted to tell its own name. It does not hide or protect the body: whoever can
read the wire between two nodes can repeat the very same request to the same node until the token expires, so peers'
API addresses belong on a trusted network or behind TLS (`https://` addresses are used as they are).
"""

import base64
import hashlib
import hmac
import json
import logging

from heliosd.cluster.member import parse_name
from heliosd.core.names import PeerName

log = logging.getLogger("heliosd.cluster")

PEER_HEADER = "x-helios-peer"
KEY_BYTES = 32
LIFETIME_S = 30
SKEW_S = 30
"""By how much the clocks of two nodes may differ."""

_SCHEME = "h1"


def derive_key(secret: str) -> bytes:
    """Make the cluster's 32-byte key from the secret that the operator gave to all nodes.

    Takes some 50 ms and 16 MiB on purpose, so that a secret that a person made up is not found by trying.
    """
    return hashlib.scrypt(secret.strip().encode(), salt=b"helios cluster key", n=2**14, r=8, p=1, dklen=KEY_BYTES)


def sign(key: bytes, *, me: PeerName, target: PeerName, method: str, path: str, now: float) -> str:
    """Make the token for one request. `path` is the request line's, query included; `now` in epoch seconds."""
    expires = int(now) + LIFETIME_S
    return f"{_SCHEME}.{_encode(me.encode())}.{expires}.{_encode(_mac(key, [me, target, expires, method, path]))}"


def verify(key: bytes, token: str, *, me: PeerName, method: str, path: str, now: float) -> PeerName | None:
    """Tell which peer made the token for this very request to this node; None when it is not to be trusted.

    Why it is not is logged here, because the peer is told nothing.
    """
    try:
        scheme, name, expiry, signature = token.split(".")
        peer = parse_name(_decode(name).decode("ascii"))
        expires = int(expiry)
        mac = _decode(signature)
    except ValueError:
        log.warning("peer token refused", extra={"reason": "malformed"})
        return None
    if scheme != _SCHEME or not hmac.compare_digest(mac, _mac(key, [peer, me, expires, method, path])):
        log.warning("peer token refused", extra={"claims": peer, "reason": "not signed for this request"})
        return None
    if not now - SKEW_S < expires <= now + LIFETIME_S + SKEW_S:
        log.warning(
            "peer token refused",
            extra={"peer": peer, "reason": "out of date: are the clocks right?", "age_s": now - expires + LIFETIME_S},
        )
        return None
    return peer


def _mac(key: bytes, facts: list[str | int]) -> bytes:
    # The key also encrypts gossip: a derived one keeps the two uses apart. JSON keeps the facts apart.
    own = hmac.digest(key, b"helios peer token " + _SCHEME.encode(), hashlib.sha256)
    return hmac.digest(own, json.dumps(facts).encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    # `altchars` with `validate` refuses what is not base64, but not the letters that the others stand for;
    # binascii.Error is a ValueError.
    if "+" in text or "/" in text:
        raise ValueError("not the alphabet of URLs")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
