"""Reads the version out of what engines and people write about a release.

Releases (`0.8.5.post1`), candidates and builds between releases (`0.9.1.dev287+g89b1388d8`, `0.11.0rc2.dev113`),
vendors' builds (`0.11.1+9114fd76.nv25.12`), ranges (`0.18/0.19`) and eras (`0.7.x-era`) all name a release; a bare
commit does not.
"""

import re

from heliosd.estimation.launch import Version

OLDEST: Version = (0, 2, 0)
"""Below it a number is a placeholder of the build (`0.1.dev19262`, `0.0.0+local`), not a release."""

_VERSION = re.compile(r"(?<![\w.])v?(\d{1,2})\.(\d{1,3})(?:\.(\d{1,3})(?![\d-])|\.x)?(?![\d-])")


def parse_version(text: str) -> Version | None:
    """The first release that `text` names as (major, minor, patch); None when it names none.

    An unknown patch (`0.7.x`, `0.18/0.19`) counts as 0. A build between releases carries the number of the release it
    leads to, so `0.9.1.dev287` compares like 0.9.1.
    """
    for found in _VERSION.finditer(text):
        major, minor, patch = found.groups()
        version = (int(major), int(minor), int(patch or 0))
        if version >= OLDEST:
            return version
    return None
