"""Asks one peer what it has: a file by its digest, or what files a model is made of."""

from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import BaseModel, Field
from yarl import URL

from heliosd.cluster.asking import Question, ask
from heliosd.cluster.identity import PEER_HEADER
from heliosd.cluster.member import Member
from heliosd.core.manifest import Manifest, ManifestFile, manifest_of
from heliosd.core.names import Digest, ModelRef, parse_digest

LOOK_S = 3.0
"""A peer that takes longer to say whether it has a file is not asked for it."""
MANIFEST_S = 10.0
MAX_ANSWER_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model as a peer tells of it."""

    manifest: Manifest
    origin: dict[str, Any]
    created_at: float
    """Seconds since the epoch, by that peer's clock."""


def blob_target(digest: Digest) -> str:
    """The path of a file at a peer."""
    return f"/helios/v1/blobs/{digest}"


def manifest_target(ref: ModelRef) -> str:
    """The path of a model's manifest at a peer. A ref needs no quoting."""
    return f"/helios/v1/models/{ref.name}@{ref.revision}/manifest"


async def blob_size(session: aiohttp.ClientSession, member: Member, digest: Digest, *, token: str) -> int | None:
    """Bytes of the file at that peer; None when it does not have it, does not give it, or does not answer in time."""
    try:
        async with session.head(
            URL(f"{member.api_url}{blob_target(digest)}", encoded=True),
            headers={PEER_HEADER: token, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=LOOK_S),
            allow_redirects=False,
        ) as response:
            return response.content_length if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


async def fetch_manifest(session: aiohttp.ClientSession, member: Member, ref: ModelRef, *, token: str) -> HeldModel:
    """What files a peer's model is made of. Raises SourceFailed when it does not tell."""
    question = Question(manifest_target(ref), f"learn what {ref} is made of from", MANIFEST_S, MAX_ANSWER_BYTES)
    return await ask(session, member, question, _held_model, token=token)


def _held_model(body: bytes) -> HeldModel:
    answer = _Answer.model_validate_json(body)
    files = manifest_of(ManifestFile(each.path, parse_digest(each.digest), each.size_bytes) for each in answer.files)
    return HeldModel(files, answer.origin, answer.created_at)


class _File(BaseModel):
    path: str
    digest: str
    size_bytes: int = Field(ge=0)


class _Answer(BaseModel):
    """Of the peer's answer only what is needed, so that other versions of Helios are understood."""

    files: list[_File]
    origin: dict[str, Any] = {}
    created_at: float = 0.0
