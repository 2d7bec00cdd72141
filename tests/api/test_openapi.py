"""The written API is the API."""

from pathlib import Path

from openapi_spec_validator import validate

from heliosd.api.openapi import ROUTES, document, plain_path
from heliosd.api.page import page
from tests.api.world import World

DOCS = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_document_is_valid_openapi() -> None:
    validate(document(ROUTES))  # type: ignore[arg-type]


def test_the_page_in_the_repository_is_the_generated_one() -> None:
    assert DOCS.read_text() == page(ROUTES), "run: python -m heliosd.api.openapi > docs/api.md"


async def test_every_route_of_the_application_is_written_down(it: World) -> None:
    served = {
        (route.method, plain)
        for route in it.listening.runner.app.router.routes()
        if route.resource is not None
        for plain in [route.resource.canonical]
    }
    written = {(route.method, plain_path(route)) for route in ROUTES}
    assert served == written
    text = DOCS.read_text()
    for method, path in written:
        assert f"{method} {path}" in text


async def test_the_document_is_served(it: World) -> None:
    async with it.http.get("/openapi.json") as response:
        body = await response.json()
    assert body["openapi"].startswith("3.1")
    assert "/helios/v1/models/{ref}" in body["paths"]


def test_every_error_code_in_the_routes_is_explained() -> None:
    text = DOCS.read_text()
    for code in {code for route in ROUTES for code in route.errors}:
        assert f"| `{code}` |" in text, code
