"""The model hub as a source: listed and authorised by `huggingface_hub`, fetched by ourselves.

The library knows the protocol, the endpoint and where tokens are kept. It is not given the bytes, because it
accepts wrong ones of the right size and cannot go on with a download that another process began.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from yarl import URL

from heliosd.core.manifest import ManifestFile
from heliosd.core.names import parse_digest
from heliosd.errors import BadRequest, HeliosError, NotAllowed, NotFound, SourceFailed
from heliosd.store.blobs import Hold
from heliosd.store.sources.fetch import Fetcher
from heliosd.store.sources.source import Listing, Progress, SourceFile, Tell, Told
from heliosd.store.sources.wanted import Wanted

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

LISTING_TIMEOUT_S = 20.0
_GIT_ID = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Which hub and as whom; None means what the environment says (`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`)."""

    endpoint: str | None = None
    token: str | None = None
    offline: bool | None = None
    """True: never ask the hub. What `HF_HUB_OFFLINE` switches off cannot be switched on here."""


@dataclass(frozen=True, slots=True)
class Found:
    """A revision as the hub lists it, and what is needed to ask for its files."""

    endpoint: str
    token: str | None
    commit: str
    files: tuple[SourceFile, ...]
    restricted: bool = False
    """Not everybody may have it: it is private, or its authors decide who gets it."""


class HubSource:
    def __init__(self, repository: str, revision: str | None, access: HubAccess, fetcher: Fetcher) -> None:
        self._repository = repository
        self._revision = revision
        self._access = access
        self._fetcher = fetcher
        self._found: Found | None = None

    async def list(self, tell: Tell) -> Listing:
        """Pin the revision to its commit and list that. Raises NotFound, NotAllowed, BadRequest or SourceFailed."""
        tell(Progress("list", self._repository))
        # Not one of the store's threads: this call cannot be interrupted, and who was cancelled must not wait for it.
        found = await asyncio.to_thread(look_up, self._repository, self._revision, self._access)
        self._found = found
        origin: dict[str, Any] = {
            "kind": "hub",
            "location": self._repository,
            "commit": found.commit,
            "revision": self._revision,
            "endpoint": found.endpoint,
        }
        if found.restricted:
            origin["restricted"] = True
        return Listing(found.files, origin, resumable=True)

    async def deliver(self, file: SourceFile, hold: Hold, report: Told) -> ManifestFile:
        """Fetch one file. Raises as `Fetcher.fetch` does."""
        if self._found is None or file.key is None:
            raise SourceFailed(f"cannot fetch {file.path}: the hub did not say what its content is")
        found = self._found
        wanted = Wanted(
            name=f"{self._repository}/{file.path}",
            url=URL(file_url(self._repository, file.path, found.commit, found.endpoint), encoded=True),
            key=file.key,
            size_bytes=file.size_bytes,
            digest=file.digest,
            git_sha1=file.git_sha1,
            token=found.token,
            commit=found.commit,
        )
        digest, size_bytes = await self._fetcher.fetch(wanted, hold, report, self._refusal)
        return ManifestFile(file.path, digest, size_bytes)

    def _refusal(self, status: int, headers: Mapping[str, str], name: str) -> HeliosError:
        return refusal(self._repository, self._found, status, headers, name)

    async def close(self) -> None:
        """The connections belong to the fetcher."""


def refusal(repository: str, found: Found | None, status: int, headers: Mapping[str, str], name: str) -> HeliosError:
    """What a 401, 403 or 404 to the request for a file means."""
    code = headers.get("X-Error-Code", "")
    if code == "GatedRepo" or status in (401, 403):
        return _gated(repository, found is not None and found.token is not None)
    return NotFound(f"cannot fetch {name}: the hub no longer has it ({code or status})", code="file_not_found")


def file_url(repository: str, path: str, commit: str, endpoint: str) -> str:
    """Where a file is asked for; the hub may redirect."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, path, revision=commit, endpoint=endpoint)


@dataclass(frozen=True, slots=True)
class Asked:
    """A hub and as whom, with nothing left to the environment."""

    endpoint: str
    token: str | None
    offline: bool


def asked_of(access: HubAccess) -> Asked:
    """What `access` comes to here. Blocks; in a thread."""
    import huggingface_hub
    from huggingface_hub import constants

    return Asked(
        (access.endpoint or constants.ENDPOINT).rstrip("/"),
        access.token or huggingface_hub.get_token(),
        constants.is_offline_mode() if access.offline is None else access.offline,
    )


def look_up(repository: str, revision: str | None, access: HubAccess) -> Found:
    """One request: which commit the revision is and which files it has. Blocks; in a thread."""
    from huggingface_hub import HfApi, errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the client library it uses

    asked = asked_of(access)
    endpoint, token = asked.endpoint, asked.token
    if asked.offline:
        raise _offline(repository, "store.offline" if access.offline else "HF_HUB_OFFLINE")
    try:
        api = HfApi(endpoint=endpoint, token=token or False)
        listed = api.model_info(repository, revision=revision, files_metadata=True, timeout=LISTING_TIMEOUT_S)
    except errors.GatedRepoError as error:
        raise _gated(repository, token is not None) from error
    except errors.RepositoryNotFoundError as error:
        hint = "" if token else ", or it is private and no token is set (HF_TOKEN)"
        raise NotFound(
            f"cannot find {repository} on {endpoint}: there is no such repository{hint}",
            code="repository_not_found",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NotFound(
            f"cannot find {revision} in {repository}: name a branch, tag or commit that exists",
            code="revision_not_found",
        ) from error
    except errors.DisabledRepoError as error:
        raise NotAllowed(f"cannot fetch {repository}: the hub has disabled it", code="repository_disabled") from error
    except errors.HFValidationError as error:
        raise BadRequest(f"cannot read {repository!r} as a repository: write org/name ({error})") from error
    except errors.OfflineModeIsEnabled as error:
        raise _offline(repository, "HF_HUB_OFFLINE") from error
    except errors.HfHubHTTPError as error:
        raise _http(repository, endpoint, error.response.status_code, str(error), token is not None) from error
    except (HTTPError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        # The last four: what the library raises when the answer is not what a hub answers.
        raise SourceFailed(
            f"cannot reach the hub at {endpoint}: {error or type(error).__name__}; check the network, the proxy "
            "settings and HF_ENDPOINT",
            code="hub_unreachable",
            cause=str(error),
        ) from error
    if not listed.sha:
        raise SourceFailed(f"cannot pin {repository}: the hub at {endpoint} does not name a commit")
    files = tuple(_file(file) for file in listed.siblings or ())
    return Found(endpoint, token, listed.sha, files, bool(listed.private or listed.gated))


def _file(listed: "RepoSibling") -> SourceFile:
    """What the hub says of one file. Its hashes become file names here, so they must be hashes."""
    if listed.lfs is None:
        if not _GIT_ID.fullmatch(listed.blob_id or ""):
            raise SourceFailed(f"cannot fetch {listed.rfilename}: the hub names no git id for it")
        return SourceFile(listed.rfilename, listed.size or 0, git_sha1=listed.blob_id)
    try:
        return SourceFile(listed.rfilename, listed.lfs.size, digest=parse_digest(listed.lfs.sha256))
    except ValueError as error:
        raise SourceFailed(f"cannot fetch {listed.rfilename}: the hub names no sha256 for it") from error


def _http(repository: str, endpoint: str, status: int, cause: str, token: bool) -> HeliosError:
    if status in (401, 403):
        return _gated(repository, token)
    return SourceFailed(f"cannot list {repository}: the hub at {endpoint} answers {status}", cause=cause)


def _gated(repository: str, token: bool) -> NotAllowed:
    what = "the token has no access: ask for it on the model's page" if token else "set a token (HF_TOKEN) with access"
    return NotAllowed(f"cannot fetch {repository}: its authors restrict access; {what}", code="gated_model")


def _offline(repository: str, by: str) -> SourceFailed:
    return SourceFailed(
        f"cannot fetch {repository}: the hub is switched off ({by}); add it from a folder, or unset that",
        code="hub_offline",
    )
