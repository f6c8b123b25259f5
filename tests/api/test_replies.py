"""What every response has: a request id, security headers, CORS headers, and a problem for unexpected errors."""

from __future__ import annotations

import httpx
import pytest
from fastapi import Request, Response
from loguru import logger

from service.api.pipeline.body_limits import MAX_BODY_BYTES
from tests.conftest import make_settings
from tests.support.factories import Factory
from tests.support.pipelines import pipeline_to
from tests.support.problems import problem
from tests.support.serving import serving

JSON = {"Content-Type": "application/json"}
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


async def failing(_request: Request) -> Response:
    raise RuntimeError("the secret ingredient")


async def test_an_unexpected_error_is_only_logged() -> None:
    transport = httpx.ASGITransport(app=pipeline_to(failing, cors={"allow_origins": [ORIGIN]}))
    lines: list[str] = []
    sink = logger.add(lines.append, level="ERROR")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/failing", headers={"Origin": ORIGIN})
    logger.remove(sink)
    assert problem(answer, 500)["code"] == "internal"
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "ingredient" not in answer.text
    assert answer.headers.items() >= {name.lower(): value for name, value in SECURITY.items()}.items()
    (line,) = lines
    assert "Traceback" in line
    assert "the secret ingredient" in line


@pytest.mark.parametrize("request_id", ["abc", "0" * 128, "0af7651916cd43dd-8448:eb21/1_c.8+=@"])
async def test_a_valid_request_id_is_kept(client: httpx.AsyncClient, request_id: str) -> None:
    for path in ("/healthz", "/nothing"):
        answer = await client.get(path, headers={"X-Request-ID": request_id})
        assert answer.headers["X-Request-ID"] == request_id
    assert problem(answer, 404)["request_id"] == request_id


@pytest.mark.parametrize(
    "request_id", [b"", b"0" * 129, b"a b", b"a\tb", b"<b>", b'"x"', b"\xff", b"a,b", b"a\nb", b"{}"]
)
async def test_an_invalid_request_id_is_replaced(client: httpx.AsyncClient, request_id: bytes) -> None:
    answers = [await client.get("/nothing", headers={b"X-Request-ID": request_id}) for _ in range(2)]
    made = [problem(answer, 404)["request_id"] for answer in answers]
    assert made[0] != made[1]
    assert all(len(one) == 32 and one.isalnum() for one in made)


async def test_every_reply_has_security_headers_and_none_names_the_server(make: Factory) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}"
    script = "/static-offline-docs/swagger-ui-bundle.js"
    answers = [
        await ada.client.post("/tasks", json={"title": "x"}),
        await ada.client.post("/tasks", json={}),
        await ada.client.post("/tasks", content=b"{", headers=JSON),
        await ada.client.post("/tasks", content=b"x"),
        await ada.client.post("/tasks", content=b" " * (MAX_BODY_BYTES + 1), headers=JSON),
        await ada.client.get(path, headers={"If-None-Match": "*"}),
        await ada.client.put(path, json={"title": "x"}, headers={"If-Match": '"9"'}),
        await ada.client.get("/tasks", headers={"Authorization": ""}),
        await ada.client.get(f"/tasks?user_id={2**40}"),
        await ada.client.delete(path),
        await ada.client.get(path),
        *[await ada.client.get(one) for one in ("/healthz", "/readyz", "/openapi.json", "/docs", "/redoc", script)],
        await ada.client.post("/healthz"),
    ]
    assert {201, 422, 400, 415, 413, 304, 412, 401, 403, 204, 404, 200, 405} == {one.status_code for one in answers}
    for answer in answers:
        assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY, answer.url
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "Cache-Control" in answer.headers
        assert "X-Request-ID" in answer.headers
        assert "total;dur=" in answer.headers["Server-Timing"]
        assert not {"server", "x-powered-by", "via"} & answer.headers.keys()


# Other origins

ORIGIN = "https://app.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "authorization,content-type,if-match",
}


async def test_other_origins_may_not_read_by_default(client: httpx.AsyncClient) -> None:
    problem(await client.options("/tasks", headers=PREFLIGHT), 405)
    answer = await client.get("/healthz", headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_a_configured_origin_may_read(make: Factory, database_url: str) -> None:
    async with serving(make_settings(database_url, cors_origins=f"{ORIGIN}, https://other.example")) as client:
        allowed = await client.options("/tasks/1", headers=PREFLIGHT)
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "PATCH" in allowed.headers["Access-Control-Allow-Methods"]
        accepted = allowed.headers["Access-Control-Allow-Headers"].lower()
        assert "if-match" in accepted
        assert "idempotency-key" in accepted
        assert "range" in accepted.split(", ")
        for path, status in (("/healthz", 200), ("/tasks", 401), ("/nothing", 404)):
            answer = await client.get(path, headers={"Origin": ORIGIN})
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
            exposed = answer.headers["Access-Control-Expose-Headers"]
            assert "ETag" in exposed
            assert "Idempotency-Replayed" in exposed
            assert "Content-Range" in exposed
            assert "Content-Disposition" in exposed
        refused = await client.options("/tasks/1", headers=PREFLIGHT | {"Origin": "https://evil.example"})
        problem(refused, 400)
        assert "Access-Control-Allow-Origin" not in refused.headers


@pytest.mark.parametrize("path", ["/healthz", "/nowhere"])
async def test_head_answers_as_get_does(client: httpx.AsyncClient, path: str) -> None:
    got, headed = await client.get(path), await client.head(path)
    assert headed.status_code == got.status_code
    assert headed.headers["Content-Length"] == got.headers["Content-Length"]
