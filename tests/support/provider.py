"""A server that imitates OpenWeather, working or failing, and records its requests."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
from aiohttp import web

KEY = "the-key-that-nobody-sees"
PATH = "/data/2.5/weather"


class Provider:
    """A weather server: `mode` is its behaviour, `modes` that for single cities, `calls` the query of each request."""

    def __init__(self) -> None:
        self.url = ""
        self.mode = "ok"
        self.modes: dict[str, str] = {}
        self.calls: list[list[tuple[str, str]]] = []
        self.released = asyncio.Event()

    @property
    def cities(self) -> list[str]:
        """Return the requested cities, in order."""
        return [dict(call)["q"] for call in self.calls]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record a request and answer it in the current mode."""
        self.calls.append(list(request.query.items()))
        return await MODES[self.modes.get(request.query["q"], self.mode)](self, request)


def temperature(city: str) -> float:
    """Return the temperature of a city, in degrees Celsius."""
    return len(city) + 0.5


def answer(city: str, **main: object) -> bytes:
    main = {"temp": temperature(city), "pressure": 1013, "humidity": 81, **main}
    whole = {"weather": [{"id": 803, "main": "Clouds"}], "main": main, "wind": {"speed": 4.1}, "dt": 1748097300}
    return orjson.dumps({**whole, "name": city, "cod": 200})


def body(text: bytes, *, status: int = 200) -> Behaviour:
    """Return a behaviour that always sends the same response."""

    async def behave(_: Provider, __: web.Request) -> web.StreamResponse:
        return web.Response(body=text, status=status, content_type="application/json")

    return behave


async def ok(_: Provider, request: web.Request) -> web.StreamResponse:
    return web.Response(body=answer(request.query["q"]), content_type="application/json")


async def late(provider: Provider, request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0.1)
    return await ok(provider, request)


async def held(provider: Provider, request: web.Request) -> web.StreamResponse:
    await provider.released.wait()
    return await ok(provider, request)


async def hangs(_: Provider, __: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def drips(_: Provider, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for byte in answer("Moscow"):
        await response.write(bytes([byte]))
        await asyncio.sleep(0.05)
    return response


async def closes_half_way(_: Provider, request: web.Request) -> web.StreamResponse:
    whole = answer("Moscow")
    response = web.StreamResponse(headers={"Content-Length": str(len(whole))})
    await response.prepare(request)
    await response.write(whole[: len(whole) // 2])
    return _hung_up(request, response)


async def closes_at_once(_: Provider, request: web.Request) -> web.StreamResponse:
    return _hung_up(request, web.Response())


async def redirects(_: Provider, request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(request.rel_url)


async def zips(_: Provider, request: web.Request) -> web.StreamResponse:
    return web.Response(body=gzip.compress(answer(request.query["q"])), headers={"Content-Encoding": "gzip"})


async def begins_with_a_mark(_: Provider, request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\xef\xbb\xbf" + answer(request.query["q"]), content_type="application/json")


async def writes_utf_16(_: Provider, request: web.Request) -> web.StreamResponse:
    text = answer(request.query["q"]).decode()
    return web.Response(body=text.encode("utf-16"), content_type="application/json", charset="utf-16")


async def names_an_unknown_charset(_: Provider, request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": "application/json; charset=x-unknown"}
    return web.Response(body=answer(request.query["q"]), headers=headers)


def _hung_up(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    assert request.transport
    request.transport.close()
    return response


Behaviour = Callable[[Provider, web.Request], Awaitable[web.StreamResponse]]
NO_CITY: dict[str, Behaviour] = {
    "no such city": body(b'{"cod": "404", "message": "city not found"}', status=404),
    "nothing to geocode": body(b'{"cod": "400", "message": "Nothing to geocode"}', status=400),
    "no such city, with status 200": body(b'{"cod": "404", "message": "city not found"}'),
}
WORKING: dict[str, Behaviour] = {"zips": zips, "begins with a mark": begins_with_a_mark, "writes UTF-16": writes_utf_16}
ALONE: dict[str, object] = {"weather": 1, "wind": [], "dt": -1, "main": {"temp": 1}}
# An answer without some of its parts, and the members of the weather that are then null.
INCOMPLETE: dict[str, tuple[Behaviour, set[str]]] = {
    name: (body(orjson.dumps({**orjson.loads(answer("Moscow")), **parts})), nulls)
    for name, parts, nulls in (
        ("has no wind", {"wind": None}, {"wind_speed"}),
        ("has a wind that is a text", {"wind": {"speed": "strong"}}, {"wind_speed"}),
        ("has no condition", {"weather": []}, {"condition"}),
        ("has a condition with NUL", {"weather": [{"main": "Clo\0uds"}]}, {"condition"}),
        ("has conditions that are no list", {"weather": {"main": "Clouds"}}, {"condition"}),
        ("has an impossible humidity", {"main": {"temp": 1, "humidity": 101}}, {"humidity"}),
        ("has a time that is a text", {"dt": "now"}, {"observed_at"}),
        ("has a temperature alone", ALONE, {"condition", "humidity", "wind_speed", "observed_at"}),
    )
}
# Without a temperature: the provider works, but this answer is of no use.
UNUSABLE: dict[str, Behaviour] = {
    "has another shape": body(b'{"weather": {"main": "Clouds"}, "main": [1]}'),
    "has no member": body(b"{}"),
    **{
        f"has temperature {temp}": body(answer("Moscow", temp=0).replace(b'"temp":0', b'"temp":' + temp.encode()))
        for temp in ("-274", '"warm"', "null", "[]")
    },
}
FAILING: dict[str, Behaviour] = {
    "refuses the key": body(b'{"cod": 401, "message": "Invalid API key."}', status=401),
    "limits": body(b'{"cod": 429}', status=429),
    "fails": body(b"Internal Server Error", status=500),
    "hangs": hangs,
    "drips": drips,
    "closes half-way": closes_half_way,
    "closes at once": closes_at_once,
    "redirects": redirects,
    "says nothing": body(b""),
    "is not JSON": body(b"<html>"),
    "is not UTF-8": body(b'{"\xff'),
    "nests": body(b"[" * 60_000),
    "is too large": body(answer("Moscow") + b" " * 70_000),
    **{
        f"has temperature {temp}": body(answer("Moscow", temp=0).replace(b'"temp":0', b'"temp":' + temp.encode()))
        for temp in ("NaN", "Infinity", "1e999")
    },
    "is another server's 404": body(b"<h1>Not Found</h1>", status=404),
    "is the provider's 404 of a wrong path": body(b'{"cod": "404", "message": "Internal error"}', status=404),
    "is another server's 404 as JSON": body(b'{"detail": "Not Found"}', status=404),
    "is another 400": body(b'{"cod": "400", "message": "wrong latitude"}', status=400),
    "names an unknown charset": names_an_unknown_charset,
    **UNUSABLE,
}
MODES: dict[str, Behaviour] = {
    "ok": ok,
    "late": late,
    "held": held,
    **NO_CITY,
    **FAILING,
    **WORKING,
    **{name: behaviour for name, (behaviour, _) in INCOMPLETE.items()},
}


@asynccontextmanager
async def serving() -> AsyncIterator[Provider]:
    """Run a provider on a free port."""
    provider = Provider()
    app = web.Application()
    app.router.add_get(PATH, provider.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield provider
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """Run an HTTP proxy that answers as the provider does; yield its URL and the URLs that it was asked for."""
    targets: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        targets.append(str(request.url.with_query(None)))
        return web.Response(body=answer(request.query["q"]), content_type="application/json")

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", targets
    finally:
        await runner.cleanup()
