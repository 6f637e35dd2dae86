"""HEAD, wherever there is GET: the same request with the same answer, of which the body is not sent (RFC 9110 §9.3.2).

HEAD is no route of its own, so that a new GET has it, with the same key, scope and checks, and the contract is half as
long. A handler whose body would be waited for or read from end to end asks `is_asked` and gives a `HeadersOnly`.
"""

from typing import Any

from litestar import Response
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Message, Receive, Scope, Send

_KEY = "head"
_FOUND_BY_ROUTING = ("path_template", "auth")


def is_asked(scope: Scope) -> bool:
    """Whether the request is a HEAD, which its handler sees as GET."""
    return _KEY in scope["state"]


def methods(allowed: set[str]) -> set[str]:
    """The methods of a path whose handlers have those in `allowed`."""
    return allowed | {"HEAD"} if "GET" in allowed else allowed


def answered(app: ASGIApp) -> ASGIApp:
    """`app`, with HEAD answered like GET, but for the body."""

    def wrapper(scope: Scope, receive: Receive, send: Send) -> Any:
        return _head(app, scope, receive, send) if scope.get("method") == "HEAD" else app(scope, receive, send)

    return wrapper


async def _head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The server keeps the scope with HEAD in it, by which it knows that Content-Length is of no body."""
    asked: Any = {**scope, "method": "GET"}
    scope["state"][_KEY] = True

    async def send_without_body(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    try:
        await app(asked, receive, send_without_body)
    finally:
        for name in _FOUND_BY_ROUTING:  # what metrics and logs say of a request
            if name in asked:
                scope[name] = asked[name]  # type: ignore[literal-required]


class HeadersOnly(Response[bytes]):
    """The answer to HEAD where the length of the body is not known before it is read."""

    def __init__(self, *, media_type: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(b"", media_type=media_type, headers=headers)

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIResponse:
        """The same as Litestar sends it."""
        return _WithoutLength(media_type=self.media_type, headers=self.headers)


class _WithoutLength(ASGIResponse):
    _should_set_content_length = False
