"""Accounts: register, log in, who am I, and which tokens are believed."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import unicodedata
from typing import Any

import asyncpg
import httpx
import pytest

from tests.conftest import SECRET_KEY, make_settings
from tests.support.factories import PASSWORD, Factory, User
from tests.support.problems import problem
from tests.support.serving import serving

JSON = {"Content-Type": "application/json"}


async def register(client: httpx.AsyncClient, username: str, password: str = PASSWORD, **more: Any) -> httpx.Response:
    return await client.post("/auth/register", json={"username": username, "password": password, **more})


async def log_in(client: httpx.AsyncClient, username: str, password: str = PASSWORD) -> httpx.Response:
    return await client.post("/auth/login", json={"username": username, "password": password})


# Register


async def test_a_new_account_is_shown_without_its_password(make: Factory, client: httpx.AsyncClient) -> None:
    created = await register(client, "Ada")
    assert created.status_code == 201
    assert created.json().keys() == {"id", "username", "role", "created_at"}
    assert created.json()["username"] == "Ada"
    assert created.json()["role"] == "user"
    assert created.json()["created_at"].endswith("Z")
    token = (await log_in(client, "Ada")).json()["access_token"]
    me = await client.get(created.headers["Location"], headers={"Authorization": f"Bearer {token}"})
    assert me.json() == created.json()


@pytest.mark.parametrize("username", ["abc", "A" * 50, "0-9", "a.b_c-D", "..."])
async def test_a_valid_username_is_accepted(make: Factory, client: httpx.AsyncClient, username: str) -> None:
    assert (await register(client, username)).json()["username"] == username


@pytest.mark.parametrize(
    "username", ["", "ab", "a" * 51, "a b", "añb", "abc\n", "abc\0", "a/b", "abc ", "\u0430bc", "a@b.c"]
)
async def test_an_invalid_username_is_refused(make: Factory, client: httpx.AsyncClient, username: str) -> None:
    problem(await register(client, username), 422, pointers={"/username"})


async def test_a_username_is_unique_without_regard_to_case(make: Factory, client: httpx.AsyncClient) -> None:
    assert (await register(client, "Grace")).status_code == 201
    assert problem(await register(client, "gRACE"), 409)["code"] == "conflict"
    assert (await log_in(client, "GRACE")).status_code == 200


@pytest.mark.parametrize(
    "password", ["x" * 8, "x" * 256, "שלום עולם", "密码密码密码密码", "🦊" * 8, "é" * 256, " " * 8, "\t\n\x01\x7f" * 2]
)
async def test_a_valid_password_logs_in(make: Factory, client: httpx.AsyncClient, password: str) -> None:
    assert (await register(client, "ada", password)).status_code == 201
    assert (await log_in(client, "ada", password)).status_code == 200
    assert (await log_in(client, "ada", password + "x")).status_code in {401, 422}


@pytest.mark.parametrize("password", ["", "x" * 7, "x" * 257, "xxxxxxxx\0", unicodedata.normalize("NFD", "é" * 7)])
async def test_an_invalid_password_is_refused(make: Factory, client: httpx.AsyncClient, password: str) -> None:
    problem(await register(client, "ada", password), 422, pointers={"/password"})


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("length", [8, 256])
async def test_both_unicode_forms_of_a_password_log_in(
    make: Factory, client: httpx.AsyncClient, forms: tuple[Any, Any], length: int
) -> None:
    registered, sent = (unicodedata.normalize(form, "é" * length) for form in forms)
    assert registered != sent
    assert (await register(client, "ada", registered)).status_code == 201
    assert (await log_in(client, "ada", sent)).status_code == 200


async def test_bytes_after_the_72nd_of_a_password_count(make: Factory, client: httpx.AsyncClient) -> None:
    await register(client, "ada", "x" * 72 + "one tail")
    problem(await log_in(client, "ada", "x" * 72 + "other tail"), 401)
    assert (await log_in(client, "ada", "x" * 72 + "one tail")).status_code == 200


async def test_only_an_administrator_registers_an_administrator(make: Factory, client: httpx.AsyncClient) -> None:
    user, admin = await make.user(), await make.admin()
    problem(await register(client, "new", role="admin"), 403)
    problem(await register(user.client, "new", role="admin"), 403)
    made = await register(admin.client, "new", role="admin")
    assert (made.status_code, made.json()["role"]) == (201, "admin")
    problem(await register(admin.client, "newer", role="root"), 422, pointers={"/role"})
    assert (await register(client, "newest", role="user")).json()["role"] == "user"


async def test_registration_may_be_for_administrators_only(
    make: Factory, client: httpx.AsyncClient, database_url: str
) -> None:
    root, ada = await make.admin(), await make.user()
    async with serving(make_settings(database_url, registration="admin")) as closed:
        for user, status in ((None, 403), (ada, 403), (root, 201)):
            headers = {"Authorization": user.client.headers["Authorization"]} if user else {}
            body = {"username": f"by_{status}", "password": PASSWORD}
            answer = await closed.post("/auth/register", json=body, headers=headers)
            assert answer.status_code == status


async def test_a_registration_with_an_invalid_token_is_refused(make: Factory, client: httpx.AsyncClient) -> None:
    client.headers["Authorization"] = "Bearer nonsense"
    problem(await register(client, "ada"), 401)


async def test_one_of_sixteen_concurrent_registrations_of_a_name_succeeds(
    make: Factory, client: httpx.AsyncClient, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    names = ["Ada", "aDA"] * 8
    statuses = [answer.status_code for answer in await asyncio.gather(*[register(client, name) for name in names])]
    assert sorted(statuses) == [201] + [409] * 15
    assert await sql.fetchval("select count(*) from users") == 1


# Log in


async def test_a_log_in_returns_a_token_that_is_accepted(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    answer = await log_in(client, ada.username)
    assert answer.status_code == 200
    assert answer.json().keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("bearer", 900)
    assert answer.headers["Cache-Control"] == "no-store"
    me = await client.get("/auth/me", headers={"Authorization": f"bearer {answer.json()['access_token']}"})
    assert (me.json()["id"], me.json()["username"], me.json()["role"]) == (ada.id, ada.username, "user")


async def test_a_log_in_may_be_a_form_as_oauth_clients_send_it(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user(password="pass wörd & = %+")
    form = {"username": ada.username, "password": "pass wörd & = %+"}
    extra = {"grant_type": "password", "scope": "", "client_id": "swagger", "client_secret": "none"}
    assert (await client.post("/auth/login", data=form | extra)).status_code == 200
    assert (await client.post("/auth/login", data=form)).status_code == 200
    problem(await client.post("/auth/login", data=form | {"remember": "1"}), 422, pointers={"/remember"})
    problem(await client.post("/auth/login", data={"username": "ada"}), 422, pointers={"/password"})
    problem(await client.post("/auth/login", data=form | {"password": "wrong"}), 401)


async def test_an_oauth_field_is_unknown_in_json(make: Factory, client: httpx.AsyncClient) -> None:
    body = {"username": "ada", "password": PASSWORD, "grant_type": "password"}
    problem(await client.post("/auth/login", json=body), 422, pointers={"/grant_type"})


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/xml", ""])
async def test_a_log_in_of_another_media_type_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    body = b'{"username": "ada", "password": "12345678"}'
    problem(await client.post("/auth/login", content=body, headers={"Content-Type": kind}), 415)


async def test_a_log_in_with_broken_json_is_refused(client: httpx.AsyncClient) -> None:
    assert problem(await client.post("/auth/login", content=b"{", headers=JSON), 400)["code"] == "malformed"


async def test_an_unknown_user_and_a_wrong_password_get_the_same_answer(
    make: Factory, client: httpx.AsyncClient
) -> None:
    ada = await make.user()
    wrong, unknown = await log_in(client, ada.username, "wrong password"), await log_in(client, "nobody")
    assert problem(wrong, 401) | {"request_id": ""} == problem(unknown, 401) | {"request_id": ""}
    assert wrong.headers["WWW-Authenticate"] == unknown.headers["WWW-Authenticate"] == "Bearer"
    assert wrong.headers.keys() == unknown.headers.keys()


# Tokens


def forge(
    user: User,
    *,
    key: str = SECRET_KEY,
    digest: str = "sha256",
    header: dict[str, Any] | None = None,
    claims: dict[str, Any] | None = None,
    without: str = "",
) -> str:
    """Change a good token and sign it again."""
    parts = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in user.token.split(".")[:2]]
    changed = [parts[0] | (header or {}), parts[1] | (claims or {})]
    signed = ".".join(encode(json.dumps({k: v for k, v in part.items() if k != without})) for part in changed)
    return f"{signed}.{encode(hmac.digest(key.encode(), signed.encode(), digest))}"


def encode(part: str | bytes) -> str:
    return base64.urlsafe_b64encode(part.encode() if isinstance(part, str) else part).decode().rstrip("=")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_signed_again_without_changes_is_accepted(make: Factory, client: httpx.AsyncClient) -> None:
    """Else the refusals below might be for another reason."""
    ada = await make.user()
    assert (await client.get("/auth/me", headers=bearer(forge(ada)))).json()["id"] == ada.id


PAST, FUTURE = 1_600_000_000, 4_000_000_000


@pytest.mark.parametrize(
    "forgery",
    [
        {"key": "another" * 8},
        {"digest": "sha512", "header": {"alg": "HS512"}},
        {"header": {"alg": "none"}},
        {"header": {"typ": "JWT"}},
        {"header": {"kid": "00000000"}},
        {"header": {"kid": ["x"]}},
        {"header": {"crit": ["exp"]}},
        {"claims": {"exp": PAST}},
        {"claims": {"exp": "soon"}},
        {"claims": {"iat": FUTURE}},
        {"claims": {"iss": "another"}},
        {"claims": {"aud": "another"}},
        {"claims": {"aud": []}},
        {"claims": {"role": "root"}},
        {"claims": {"role": ["admin"]}},
        {"claims": {"sub": "ada"}},
        {"claims": {"sub": 1}},
        *({"without": name} for name in ("alg", "typ", "kid", "iss", "aud", "sub", "role", "iat", "exp", "jti")),
    ],
    ids=str,
)
async def test_a_forged_token_is_refused(make: Factory, client: httpx.AsyncClient, forgery: dict[str, Any]) -> None:
    token = forge(await make.admin(), **forgery)
    for path in ("/auth/me", "/tasks"):
        refused = await client.get(path, headers=bearer(token))
        problem(refused, 401)
        assert refused.headers["WWW-Authenticate"] == "Bearer"


async def test_a_token_without_its_signature_is_refused(make: Factory, client: httpx.AsyncClient) -> None:
    signed = forge(await make.admin(), header={"alg": "none"}).rpartition(".")[0]
    problem(await client.get("/auth/me", headers=bearer(f"{signed}.")), 401)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b.c",
        "Bearer ....",
        "Basic YTpi",
        "Bearer {token}x",
        "Bearer {token} {token}",
        "{token}",
        f"Bearer {encode('[' * 50_000)}.e30.x",
        f"Bearer {encode('9' * 5_000)}.e30.x",
        "Bearer \xff\xfe",
    ],
    ids=lambda value: value[:20],
)
async def test_a_malformed_authorization_is_refused(make: Factory, client: httpx.AsyncClient, value: str) -> None:
    header = value.format(token=(await make.user()).token).encode("latin-1")
    problem(await client.get("/auth/me", headers={b"Authorization": header}), 401)


async def test_no_token_is_refused(client: httpx.AsyncClient) -> None:
    refused = await client.get("/auth/me")
    assert problem(refused, 401)["code"] == "unauthorized"
    assert refused.headers["WWW-Authenticate"] == "Bearer"


async def test_a_token_of_the_previous_key_is_accepted_and_none_is_signed_with_it(
    make: Factory, client: httpx.AsyncClient, database_url: str
) -> None:
    ada = await make.user()
    rotated = make_settings(database_url, secret_key="new" * 16, secret_key_previous=SECRET_KEY)
    async with serving(rotated) as other:
        assert (await other.get("/auth/me", headers=bearer(ada.token))).json()["id"] == ada.id
        new = (await log_in(other, ada.username)).json()["access_token"]
        assert (await other.get("/auth/me", headers=bearer(new))).status_code == 200
    problem(await client.get("/auth/me", headers=bearer(new)), 401)


async def test_a_token_of_a_deleted_account_is_refused(make: Factory, sql: asyncpg.Connection[asyncpg.Record]) -> None:
    ada = await make.user()
    await sql.execute("delete from users where id = $1", ada.id)
    for refused in (await ada.client.get("/auth/me"), await ada.client.post("/tasks", json={"title": "late"})):
        problem(refused, 401)
        assert refused.headers["WWW-Authenticate"] == "Bearer"


async def test_a_form_is_utf_8_whether_percent_encoded_or_not(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user(password="пароль-секрет")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    raw = f"username={ada.username}&password=пароль-секрет".encode()
    assert (await client.post("/auth/login", content=raw, headers=form)).status_code == 200
    assert (await client.post("/auth/login", data={"username": ada.username, "password": "пароль-секрет"})).is_success
    assert (await client.post("/auth/login", content=b"username=a&password=\xff", headers=form)).status_code == 400


async def test_an_account_registered_by_an_administrator_is_located_under_users(make: Factory) -> None:
    admin = await make.admin()
    made = await admin.client.post("/auth/register", json={"username": "grace", "password": "correct horse"})
    assert made.headers["Location"] == f"/users/{made.json()['id']}"


@pytest.mark.parametrize("username", ["al\u0130ce", "ali\u0307ce", "\u212aim"])
async def test_only_valid_names_log_in(make: Factory, client: httpx.AsyncClient, username: str) -> None:
    for name in ("alice", "kim"):
        await make.user(username=name)
    answer = await client.post("/auth/login", json={"username": username, "password": PASSWORD})
    assert answer.status_code == 401
