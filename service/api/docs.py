"""The files of the page at /docs, served from the package so that it works without internet."""

from litestar import Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from service.api.auth import PAGE
from service.api.openapi import STATIC

MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
"""The files that are served, and as what."""


@get("/{name:str}", include_in_schema=False, opt=PAGE)
async def asset(name: FromPath[str]) -> Response[bytes]:
    """A script or style sheet of Swagger UI."""
    if name not in MEDIA_TYPES:
        raise NotFoundException
    return Response(
        (STATIC / name).read_bytes(),
        media_type=MEDIA_TYPES[name],
        headers={"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"},
    )


ROUTER = Router("/docs/assets", route_handlers=[asset])
