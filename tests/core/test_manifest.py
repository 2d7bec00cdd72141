"""A manifest's digest names its content; its paths cannot leave their folder."""

import pytest

from heliosd.core.manifest import ManifestFile, checked_path, manifest_of
from heliosd.core.names import Digest

ONE = ManifestFile("config.json", Digest("1" * 64), 10)
TWO = ManifestFile("sub/model.safetensors", Digest("2" * 64), 20)


def test_order_does_not_matter_but_content_does() -> None:
    assert manifest_of([ONE, TWO]).digest == manifest_of([TWO, ONE]).digest
    assert manifest_of([ONE]).digest != manifest_of([TWO]).digest
    assert manifest_of([ONE, TWO]).size_bytes == 30
    assert manifest_of([ONE]).file("config.json") == ONE
    assert manifest_of([ONE]).file("other") is None


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../b", "a//b", "", ".", "a\\b", "a\x00b", "a/", "x" * 600]
)
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        checked_path(path)


def test_a_path_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        manifest_of([ONE, ONE])
