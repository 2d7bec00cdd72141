"""At the door: what is refused at once, whatever the devices look like."""

from heliosd.core.messages import Forward, Limits, RefusalCode, Refuse, RequestArrived
from heliosd.core.names import PeerName


def refusal(request: RequestArrived, *, draining: bool, queued: int, limits: Limits) -> Refuse | None:
    """Refuse what this node will not even queue; None lets the request in."""
    if draining:
        return Refuse(
            request.ticket,
            RefusalCode.DRAINING,
            "cannot take new requests: this node is draining; ask again when it is back, or another node",
            retry_after_s=10.0,
        )
    if queued >= limits.queue_length:
        return Refuse(
            request.ticket,
            RefusalCode.QUEUE_FULL,
            f"cannot queue the request for {request.model}: {queued} are waiting, the limit is {limits.queue_length}",
            retry_after_s=5.0,
        )
    return None


def elsewhere(request: RequestArrived, holders: tuple[PeerName, ...], why: str) -> Forward | None:
    """Pass the request to a peer that holds the model, unless it already comes from one.

    The peer is chosen by the ticket, so that requests spread without any state.
    """
    if request.forwarded or not holders:
        return None
    peer = sorted(holders)[sum(request.ticket.encode()) % len(holders)]
    return Forward(request.ticket, peer, f"{why}; {peer} has {request.model}")
