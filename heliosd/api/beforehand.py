"""What kilobytes of the hub tell before gigabytes are fetched: whether this node could ever run the model."""

from heliosd.api.parts import Parts
from heliosd.core.manifest import manifest_of
from heliosd.core.names import Digest, ModelRef
from heliosd.errors import BadRequest, CannotFit, NotFound, SourceFailed
from heliosd.store.sources.peers import ASK_PEERS
from heliosd.store.stored import Addition, StoredModel, default_ref


async def check_fits(parts: Parts, wanted: Addition, ref: ModelRef, *, anyway: bool) -> None:
    """Raise CannotFit for what never fits here, with the arithmetic; `anyway`: only note it in the journal.

    Nothing is said of adapters, of what has no configuration that can be judged, and on a node without devices. What
    the hub refuses is raised as fetching would raise it.
    """
    if wanted.source != "hub" or not parts.node.snapshot().devices:
        return
    try:
        seen = await parts.hub_glance(wanted.location, wanted.revision)
        prospect = StoredModel(
            ref, Digest(seen.commit), manifest_of(()), f"hub {wanted.location}", 0.0, (), seen.profile
        )
        judged = await parts.node.judge_unstored(prospect, seen.known)
    except BadRequest:
        return
    except (SourceFailed, NotFound) as error:
        names = {str(ref), str(default_ref(wanted))}
        if error.code in ASK_PEERS and any(names & models for models in parts.peers.holds.values()):
            return
        raise
    if judged.verdict != "never_fits":
        return
    if anyway:
        parts.journal.note("model", f"{ref} is fetched anyway: {judged.reason}", model=str(ref))
        return
    parts.journal.note("model", f"{ref} was refused before its fetch: {judged.reason}", model=str(ref))
    raise CannotFit(
        f"cannot use {ref} on this node, so it was not fetched: {judged.reason}; fetch it nevertheless with "
        '`--anyway` ("anyway": true)'
    )
