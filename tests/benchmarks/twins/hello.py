"""The floor of the server: ASGI that answers a constant."""

from __future__ import annotations

from tests.benchmarks.twins.bare import JSON, Message, Receive, Send

BODY = b'{"hello":"world"}'


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer every request alike."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = [JSON, (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
