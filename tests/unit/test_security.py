"""Passwords: what is hashed, how many wait, who else may go on meanwhile; tokens: who is believed, and how long."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import threading
import time
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

import bcrypt
import jwt
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.accounts import passwords as hashing
from service.accounts import tokens
from service.accounts.passwords import Passwords
from service.accounts.tokens import RefreshToken, RefreshTokens, Tokens
from service.core.errors import RateLimitedError, UnauthorizedError, UnavailableError
from service.core.viewer import Viewer


@dataclass
class User:
    """Pays for hashes from a budget of its own."""

    key: str
    budget: int = 1000
    hashes: int = 0
    address: str = "192.0.2.1"

    async def charge(self) -> None:
        """Count one."""
        if self.hashes >= self.budget:
            raise RateLimitedError("Too many requests.", retry_after=1)
        self.hashes += 1


KEY, OTHER_KEY = "a" * 32, "b" * 32
TOKENS = Tokens((KEY,), minutes=15)


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    """Hashed at the lowest cost."""
    passwords = Passwords(cost=4)
    yield passwords
    passwords.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, no hash comes to its end."""
    gate, hashpw = threading.Event(), bcrypt.hashpw

    def held(password: bytes, salt: bytes) -> bytes:
        gate.wait(30)
        return hashpw(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", held)
    yield gate
    gate.set()


@pytest.mark.parametrize("password", ["correct horse", "пароль на кириллице", "密码" * 128, "\0nul", "x" * 256])
async def test_a_password_verifies_against_its_hash_and_no_other_does(passwords: Passwords, password: str) -> None:
    kept = await passwords.hash(password, payer=None)
    assert await passwords.verify(password, kept, payer=None)
    assert not await passwords.verify(password + ".", kept, payer=None)
    assert not await passwords.verify(password[:-1], kept, payer=None)
    assert password not in kept


async def test_the_two_spellings_of_an_accent_are_one_password(passwords: Passwords) -> None:
    composed, decomposed = (unicodedata.normalize(form, "crème brûlée") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert await passwords.verify(decomposed, await passwords.hash(composed, payer=None), payer=None)


async def test_passwords_that_differ_after_72_bytes_or_a_nul_differ(passwords: Passwords) -> None:
    assert not await passwords.verify("x" * 72 + "b", await passwords.hash("x" * 72 + "a", payer=None), payer=None)
    assert not await passwords.verify("same\0b", await passwords.hash("same\0a", payer=None), payer=None)


def test_bcrypt_gets_text_short_enough_to_hash_completely() -> None:
    digests = [hashing._digest(f"password {number}") for number in range(1000)]
    assert all(len(digest) == 44 and b"\0" not in digest for digest in digests)


async def test_equal_passwords_have_different_hashes(passwords: Passwords) -> None:
    assert await passwords.hash("one password", payer=None) != await passwords.hash("one password", payer=None)


def test_the_cost_is_twelve_where_no_test_lowers_it() -> None:
    passwords = Passwords()
    assert passwords._dummy_hash.startswith("$2b$12$")
    passwords.close()


async def test_an_unknown_user_costs_a_real_hash_and_is_refused(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = Mock(side_effect=bcrypt.checkpw)
    monkeypatch.setattr(bcrypt, "checkpw", checked)
    kept = await passwords.hash("known", payer=None)
    assert await passwords.verify("known", kept, payer=None)
    assert not await passwords.verify("known", None, payer=None)
    existing, unknown = (call.args[1] for call in checked.call_args_list)
    assert existing[:7] == unknown[:7]  # the same algorithm and cost

    monkeypatch.setattr(bcrypt, "checkpw", Mock(return_value=True))
    assert not await passwords.verify("a guess of nobody's password", None, payer=None)


@pytest.mark.parametrize("kept", ["", "!", "locked", "$2b$99$" + "." * 53, "\N{CYRILLIC SMALL LETTER A}"])
async def test_an_invalid_hash_written_by_a_dba_accepts_no_password(passwords: Passwords, kept: str) -> None:
    assert not await passwords.verify("any", kept, payer=None)


async def test_a_log_in_above_the_queue_limit_is_refused_and_accepted_later(gate: threading.Event) -> None:
    gate.set()
    passwords = Passwords(cost=4, max_waiting=2)
    gate.clear()
    threads = passwords._pool._max_workers
    running = [asyncio.create_task(passwords.hash("any", payer=User(f"{n}"))) for n in range(threads + 2)]
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError):
        await passwords.hash("one too many", payer=User("other"))
    with pytest.raises(UnavailableError):
        await passwords.verify("one too many", None, payer=User("other"))
    gate.set()
    assert len(await asyncio.gather(*running)) == threads + 2
    assert await passwords.hash("again", payer=User("other"))
    passwords.close()


async def test_a_caller_that_leaves_keeps_its_slot_until_its_hash_is_done(gate: threading.Event) -> None:
    gate.set()
    passwords = Passwords(cost=4, max_waiting=0)
    gate.clear()
    running = [
        asyncio.create_task(passwords.hash("any", payer=User(f"{n}"))) for n in range(passwords._pool._max_workers)
    ]
    await asyncio.sleep(0)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    with pytest.raises(UnavailableError):  # the threads are at work still
        await passwords.hash("one too many", payer=User("other"))
    gate.set()
    async with asyncio.timeout(10):
        while passwords._slots._free < len(running):  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0)
    passwords.close()


async def test_a_caller_that_leaves_before_its_hash_runs_uses_no_slot(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.set()
    passwords = Passwords(cost=4)
    gate.clear()
    hashpw = Mock(side_effect=bcrypt.hashpw)
    monkeypatch.setattr(bcrypt, "hashpw", hashpw)
    ada = User("ada")
    running, waiting, next_one = (asyncio.create_task(passwords.hash(n, payer=ada)) for n in ("a", "b", "c"))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.set()
    await asyncio.gather(running, next_one)
    assert waiting.cancelled()
    assert {call.args[0] for call in hashpw.call_args_list} == {hashing._digest("a"), hashing._digest("c")}
    passwords.close()


async def test_a_hash_is_charged_before_it_runs(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = User("ada")
    kept = await passwords.hash("password", payer=ada)
    assert ada.hashes == 1
    assert await passwords.verify("password", kept, payer=ada)
    assert not await passwords.verify("password", None, payer=ada)
    assert ada.hashes == 3
    for name in ("hashpw", "checkpw"):
        monkeypatch.setattr(bcrypt, name, Mock(side_effect=AssertionError))
    penniless = User("spent", budget=0)
    with pytest.raises(RateLimitedError):
        await passwords.hash("password", payer=penniless)
    with pytest.raises(RateLimitedError):
        await passwords.verify("password", kept, payer=penniless)


async def test_a_user_waits_for_one_hash_of_each_other_user(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.set()
    monkeypatch.setattr("service.accounts.passwords.os.cpu_count", lambda: 2)
    passwords = Passwords(cost=4)
    gate.clear()
    order: list[bytes] = []
    hashpw = bcrypt.hashpw

    def noted(password: bytes, salt: bytes) -> bytes:
        order.append(password)
        return hashpw(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", noted)
    others = [User(f"other {n}") for n in range(3)]
    hashes = [asyncio.create_task(passwords.hash("other", payer=one)) for one in others for _ in range(10)]
    await asyncio.sleep(0)
    ada = asyncio.create_task(passwords.hash("ada", payer=User("ada")))
    await asyncio.sleep(0)
    gate.set()
    assert await ada
    assert order.index(hashing._digest("ada")) <= 1 + len(others)  # the one that runs, and one of each
    await asyncio.gather(*hashes)
    passwords.close()


async def test_the_event_loop_runs_while_a_password_is_hashed(gate: threading.Event) -> None:
    gate.set()
    passwords = Passwords(cost=4)
    gate.clear()
    hashing = asyncio.create_task(passwords.hash("any", payer=None))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not hashing.done()
    gate.set()
    assert await hashing
    passwords.close()


@pytest.mark.parametrize("role", ["user", "admin"])
def test_a_token_identifies_the_user_it_was_issued_for(role: str) -> None:
    before = int(time.time())
    viewer = TOKENS.verify(TOKENS.issue(user_id=2**63 - 1, role=role, session_id=2**63 - 2))
    assert viewer == Viewer(2**63 - 1, is_admin=role == "admin")
    assert (viewer.session_id, viewer.key_id, viewer.read_only) == (2**63 - 2, None, False)
    assert before + 900 <= viewer.expires_at <= time.time() + 900


def test_a_token_has_the_claims_of_the_contract_and_an_id_of_its_own() -> None:
    one, two = (TOKENS.issue(user_id=1, role="user", session_id=7) for _ in range(2))
    claims = jwt.decode(one, options={"verify_signature": False})
    assert set(claims) == {"iss", "aud", "sub", "sid", "role", "iat", "exp", "jti"}
    assert claims["exp"] - claims["iat"] == TOKENS.lifetime_seconds == 900
    header = jwt.get_unverified_header(one)
    assert (header["alg"], header["typ"]) == ("HS256", "at+jwt")
    assert header["kid"] not in KEY
    assert claims["jti"] != jwt.decode(two, options={"verify_signature": False})["jti"]


def test_after_a_rotation_the_previous_key_verifies_and_does_not_sign() -> None:
    old = TOKENS.issue(user_id=1, role="user", session_id=7)
    rotated = Tokens((OTHER_KEY, KEY), minutes=15)
    assert rotated.verify(old).id == 1
    new = rotated.issue(user_id=2, role="user", session_id=7)
    assert Tokens((OTHER_KEY,), minutes=15).verify(new).id == 2
    with pytest.raises(UnauthorizedError):
        TOKENS.verify(new)
    with pytest.raises(UnauthorizedError):
        Tokens((OTHER_KEY,), minutes=15).verify(old)


def forged(
    *, key: str = KEY, algorithm: str = "HS256", header: dict[str, str] | None = None, without: str = "", **claims: Any
) -> str:
    """Return a token that differs from a good one in what is named."""
    now = int(time.time())
    good = {"iss": "task-manager", "aud": "task-manager-api", "sub": "1", "sid": "7", "role": "user", "jti": "x"}
    told = {**good, "iat": now, "exp": now + 60, **claims}
    told.pop(without, None)
    headers = {"kid": tokens._key_id(KEY), "typ": "at+jwt", **(header or {})}
    headers.pop(without, None)
    with warnings.catch_warnings(action="ignore", category=jwt.InsecureKeyLengthWarning):
        return jwt.PyJWS().encode(json.dumps(told).encode(), key, algorithm, headers=headers)  # looks at no claim


def encoded(*parts: bytes) -> str:
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def signed(header: dict[str, Any], claims: str, *, key: str = KEY) -> str:
    """Return a token of a header that no library writes, over the claims of a good one."""
    text = encoded(orjson.dumps(header)) + "." + claims
    return f"{text}.{encoded(hmac.digest(key.encode(), text.encode(), 'sha256'))}"


def test_an_unchanged_token_is_accepted() -> None:
    assert TOKENS.verify(forged()) == Viewer(1, is_admin=False)
    assert TOKENS.verify(signed(HEADER, forged().split(".")[1])) == Viewer(1, is_admin=False)


HEADER = {"alg": "HS256", "typ": "at+jwt", "kid": tokens._key_id(KEY)}
OTHER_JWK = {"kty": "oct", "k": encoded(OTHER_KEY.encode())}


@pytest.mark.parametrize(
    "token",
    [
        "",
        "no.token.atall",
        "\N{CYRILLIC SMALL LETTER A}",
        forged()[:-2],
        encoded(b"[" * 40_000, b"{}", b"x"),
        encoded(orjson.dumps(HEADER), b"[" * 40_000, b"x"),
        encoded(b'{"kid": ' + b"1" * 10_000 + b"}", b"{}", b"x"),
        forged(key=OTHER_KEY),
        forged(key="", algorithm="none"),
        *(
            signed({**HEADER, "alg": alg}, forged().split(".")[1])
            for alg in ("none", "None", "NONE", "", None, "hs256", "HS384", "RS256", ["HS256"])
        ),
        encoded(orjson.dumps({**HEADER, "alg": "none"})) + "." + forged().split(".")[1] + ".",
        encoded(orjson.dumps(HEADER)) + "." + forged().split(".")[1] + ".",
        forged(algorithm="HS512", key="a" * 64),
        forged(algorithm="HS512"),
        encoded(orjson.dumps({**HEADER, "alg": "RS256"})) + "." + forged().split(".")[1] + "." + encoded(b"s" * 256),
        signed(HEADER, forged().split(".")[1], key=tokens._key_id(KEY)),  # all that is public of the key
        signed(HEADER, forged().split(".")[1], key=""),
        signed({**HEADER, "jwk": OTHER_JWK}, forged().split(".")[1], key=OTHER_KEY),
        signed({**HEADER, "crit": ["exp"]}, forged().split(".")[1]),
        forged(header={"typ": "JWT"}),
        forged(header={"typ": "refresh+jwt"}),
        forged(without="typ"),
        forged(header={"kid": "another"}),
        forged(header={"kid": tokens._key_id(OTHER_KEY)}),
        forged(without="kid"),
        forged(iss="another"),
        forged(iss=["task-manager"]),
        forged(aud="another"),
        forged(aud=["another"]),
        forged(exp=int(time.time()) - 6),
        forged(iat=int(time.time()) + 600),
        forged(exp="soon"),
        forged(exp=None),
        forged(exp=float("nan")),
        forged(exp=float("inf")),
        forged(iat=float("nan")),
        forged(nbf=int(time.time()) + 600),
        forged(role="owner"),
        forged(role=["admin"]),
        forged(role=None),
        forged(sub="ada"),
        forged(sub=1),
        forged(sid="seven"),
        forged(sid=None),
        forged(sid=["7"]),
        forged(jti=7),
        RefreshTokens((KEY,)).write(RefreshToken(7, b"s" * 32)),
        *(forged(without=claim) for claim in tokens.CLAIMS),
    ],
)
def test_an_invalid_token_is_refused(token: str) -> None:
    with pytest.raises(UnauthorizedError) as refused:
        TOKENS.verify(token)
    assert refused.value.__cause__ is None


def test_an_expired_token_is_reported_as_such_with_a_tolerance_of_five_seconds() -> None:
    assert tokens.LEEWAY_SECONDS <= 30
    now = int(time.time())
    with pytest.raises(UnauthorizedError, match="expired"):
        TOKENS.verify(forged(exp=now - 30))
    assert TOKENS.verify(forged(exp=now - 2, iat=now + 2)).id == 1


USED_TOKEN = RefreshToken(7, bytes(range(32)))


def test_a_token_that_was_verified_before_expires_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Tokens(("k" * 32,), minutes=15)
    token = issuer.issue(user_id=1, role="user", session_id=1)
    assert issuer.verify(token) is issuer.verify(token)
    expired_at = time.time() + 15 * 60 + tokens.LEEWAY_SECONDS + 1
    monkeypatch.setattr("service.accounts.tokens.time.time", lambda: expired_at)
    with pytest.raises(UnauthorizedError, match="expired"):
        issuer.verify(token)


@pytest.mark.parametrize("token", [USED_TOKEN, RefreshToken(1, b"\0" * 32), RefreshToken(2**63 - 1, b"\xff" * 32)])
def test_a_refresh_token_is_read_as_it_was_written(token: RefreshToken) -> None:
    tokens = RefreshTokens((KEY,))
    assert tokens.read(tokens.write(token)) == (token, True)
    assert re.fullmatch(r"[A-Za-z0-9_-]{75}", tokens.write(token))


def test_only_a_hash_of_the_secret_of_a_refresh_token_is_stored() -> None:
    assert USED_TOKEN.hash == hashlib.sha256(USED_TOKEN.secret).digest() == RefreshToken(8, USED_TOKEN.secret).hash


def test_after_a_rotation_refresh_tokens_of_the_previous_key_are_genuine_and_those_of_the_one_before_are_not() -> None:
    written = RefreshTokens((KEY,)).write(USED_TOKEN)
    assert RefreshTokens((OTHER_KEY, KEY)).read(written) == (USED_TOKEN, True)
    assert RefreshTokens((OTHER_KEY,)).read(written) == (
        USED_TOKEN,
        False,
    )  # its hash is still in the database
    assert RefreshTokens((OTHER_KEY, KEY)).write(USED_TOKEN) == RefreshTokens((OTHER_KEY,)).write(USED_TOKEN) != written


@pytest.mark.parametrize("position", range(0, 56, 5))
def test_a_refresh_token_with_one_bit_changed_is_not_genuine(position: int) -> None:
    """So nobody ends a session, or another's, who did not have a token of it."""
    tokens = RefreshTokens((KEY,))
    sealed = bytearray(base64.urlsafe_b64decode(tokens.write(USED_TOKEN) + "="))
    sealed[position] ^= 1
    token, genuine = tokens.read(encoded(bytes(sealed)))
    assert not genuine
    assert (token == USED_TOKEN) is (position >= 40)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "\0",
        "\N{CYRILLIC SMALL LETTER A}" * 75,
        encoded(b"x" * 55),
        encoded(b"x" * 57),
        RefreshTokens((KEY,)).write(USED_TOKEN)[:-1],
        RefreshTokens((KEY,)).write(USED_TOKEN) + "A",
        RefreshTokens((KEY,)).write(USED_TOKEN)[:-1] + "\n",
        " " + RefreshTokens((KEY,)).write(USED_TOKEN),
        forged(),
        "A" * 100_000,
    ],
)
def test_a_text_that_is_no_refresh_token_is_refused(text: str) -> None:
    with pytest.raises(UnauthorizedError):
        RefreshTokens((KEY,)).read(text)


@given(st.text() | st.text("ABCxyz019-_+/=", min_size=70, max_size=80))
def test_no_text_fails_otherwise(text: str) -> None:
    try:
        _, genuine = RefreshTokens((KEY,)).read(text)
    except UnauthorizedError:
        return
    assert not genuine
