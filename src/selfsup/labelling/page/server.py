"""The server of the labelling page: on this computer alone, and only for who has the address with its token."""

from __future__ import annotations

import errno
import json
import logging
import secrets
import socket
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from selfsup.errors import UserError, need
from selfsup.labelling.session import Refused, Session

HOST = "127.0.0.1"
LONGEST = 10_000  # bytes of an action
THUMBNAIL, LARGE = 128, 768  # pixels a side
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
KINDS = {"page.css": "text/css", "page.js": "text/javascript"}
Show = Callable[[int, int], tuple[bytes, str] | str | None]  # number, side -> image and MIME type, text, None: broken


def make_app(session: Session, show: Show, token: str, port: int) -> Any:
    """Return the ASGI application; its address is http://127.0.0.1:PORT/TOKEN/."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    hosts = {f"{HOST}:{port}", f"localhost:{port}"}

    def page(request: Request) -> Response:
        return Response(_file("page.html"), media_type="text/html; charset=utf-8")

    def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in KINDS:
            return PlainTextResponse("not found", 404)
        return Response(_file(name), media_type=KINDS[name])

    def state(request: Request) -> Response:
        if request.query_params.get("version") == str(session.version):
            return Response(status_code=204)
        return JSONResponse(session.state())

    def sample(request: Request) -> Response:
        try:
            item = session.item(request.path_params["number"])
        except Refused as refusal:
            return PlainTextResponse(str(refusal), 404)
        if request.path_params["size"] == "item":
            return JSONResponse(item)
        side = LARGE if request.path_params["size"] == "large" else THUMBNAIL
        content = show(item["number"], side)
        if content is None:
            return PlainTextResponse("this sample can no longer be read", 404)
        if isinstance(content, str):
            return PlainTextResponse(content.encode(errors="replace").decode())
        image, mime = content
        return Response(image, media_type=mime, headers={"cache-control": "private, max-age=3600"})

    async def act(request: Request) -> Response:
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > LONGEST:
                    return PlainTextResponse("too long", 413)
        except ClientDisconnect:  # the browser was closed before it had said all: nothing was asked
            return PlainTextResponse("not an action", 400)
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            return PlainTextResponse("not an action", 400)
        try:
            acted = await run_in_threadpool(session.act, event)
        except Refused as refusal:
            return JSONResponse({"refused": str(refusal)} | await run_in_threadpool(session.state), 409)
        return JSONResponse({"acted": acted} | await run_in_threadpool(session.state))

    inner = Starlette(
        routes=[
            Route("/{token}/", page),
            Route("/{token}/state", state),
            Route("/{token}/act", act, methods=["POST"]),
            Route("/{token}/sample/{number:int}/{size}", sample),
            Route("/{token}/{name}", asset),
        ]
    )

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        """Answer those who know the token and speak to this computer by its name (DNS rebinding), with our headers."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        given = request.url.path.split("/")[1] if "/" in request.url.path else ""
        refusal = None
        if host not in hosts or not secrets.compare_digest(given.encode(), token.encode()):
            refusal = PlainTextResponse("not found", 404)
        elif origin not in ({f"http://{host}"} if request.method == "POST" else {None, f"http://{host}"}):
            refusal = PlainTextResponse("another origin", 403)

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                there = {key.lower() for key, _ in message["headers"]}
                added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in there]
                message = message | {"headers": [*message["headers"], *added]}
            await send(message)

        await (refusal or inner)(scope, receive, with_headers)

    return guarded


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this computer alone, 0: on a free port. Raises `UserError` for one in use."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise UserError(f"port {port} {reason}; give another --port, or leave it out for a free one") from None
    return listener


def serve(session: Session, show: Show, listener: socket.socket, ready: Callable[[str], None] = print) -> None:
    """Serve the page on a socket of `listen` until Ctrl-C, and close the session; `ready` gets its address."""
    uvicorn = need("uvicorn", "label")
    port, token = listener.getsockname()[1], secrets.token_urlsafe(32)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    app = make_app(session, show, token, port)
    options = {"lifespan": "off", "ws": "none", "log_config": None, "access_log": False, "server_header": False}
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=2, **options))
    ready(f"http://{HOST}:{port}/{token}/")
    try:
        server.run([listener])
    except KeyboardInterrupt:  # which uvicorn raises again once it has ended
        pass
    finally:
        session.close()


def _file(name: str) -> bytes:
    return files("selfsup.labelling.page").joinpath(name).read_bytes()
