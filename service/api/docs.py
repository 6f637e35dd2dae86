"""The page at /docs, its files, and their headers. All files come from the package, so no Internet is needed."""

from pathlib import Path
from typing import Any

from litestar import Request, Response, Router, get
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.params import FromPath

from service.api.auth import PAGE

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "docs.js": "text/javascript",
    "docs.css": "text/css",
}
"""The files that are served, and as what."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Scripts and styles are files of this service, none is inline; nothing is asked of any other host."""

HEADERS = tuple(
    ResponseHeader(name=name, value=value)
    for name, value in (
        ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
    )
)
"""Sent with the page, its files and the contract."""


class DocsPage(OpenAPIRenderPlugin):
    """The page, which reads the contract from /openapi.json."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """The page's HTML, the same for every request."""
        return (STATIC / "docs.html").read_bytes()


@get("/{name:str}", include_in_schema=False, opt=PAGE)
async def asset(name: FromPath[str]) -> Response[bytes]:
    """A script or style sheet of the page."""
    if name not in MEDIA_TYPES:
        raise NotFoundException
    return Response(
        (STATIC / name).read_bytes(),
        media_type=MEDIA_TYPES[name],
        headers={"Cache-Control": "public, max-age=86400"},
    )


ROUTER = Router("/docs/assets", route_handlers=[asset], response_headers=HEADERS)
