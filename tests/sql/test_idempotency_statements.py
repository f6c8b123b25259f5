"""The statements of Idempotency-Key: the claim of a request and its stored response."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

from service.core.errors import InvalidError, UnauthorizedError
from service.db.pool import Connection, Database
from service.db.queries import q
from tests.support.factories import Factory

ONE, OTHER = b"1" * 16, b"2" * 16


async def claim(db: Database | Connection, user_id: int, *, holder: bytes = ONE, **values: Any) -> Any:
    arguments: dict[str, Any] = {"route": "POST /tasks", "key": "k", "fingerprint": b"body", "seconds": 60.0, **values}
    row = await q.idempotency.claim(db, user_id=user_id, holder=holder, **arguments)
    return row and row["verdict"]


async def keep(db: Database | Connection, user_id: int, *, holder: bytes = ONE) -> int:
    return await q.idempotency.save_response(
        db,
        user_id=user_id,
        route="POST /tasks",
        key="k",
        holder=holder,
        status=201,
        headers=orjson.Fragment(b'{"etag":"\\"1\\""}'),
        body=b"\x00answer",
    )


async def release(db: Database, user_id: int, *, holder: bytes = ONE) -> int:
    return await q.idempotency.release(db, user_id=user_id, route="POST /tasks", key="k", holder=holder)


async def test_a_claim_runs_until_its_response_is_stored_and_the_stored_response_is_replayed(
    database: Database, make: Factory
) -> None:
    ada = await make.user()
    assert await claim(database, ada.id) == "claimed"
    assert await claim(database, ada.id, holder=OTHER) == "running"
    assert await claim(database, ada.id, holder=OTHER, fingerprint=b"other") == "other"
    assert await keep(database, ada.id, holder=OTHER) == 0
    assert await keep(database, ada.id) == 1
    assert await keep(database, ada.id) == 0
    rows = [
        await q.idempotency.claim(
            database, user_id=ada.id, route="POST /tasks", key="k", fingerprint=sent, holder=OTHER, seconds=1.0
        )
        for sent in (b"other", b"body")
    ]
    found = [(row["verdict"], row["status"], row["body"]) for row in rows if row]
    assert found == [("other", 201, None), ("answered", 201, b"\x00answer")]
    row = rows[-1]
    assert row
    assert orjson.dumps(row["headers"]) == b'{"etag":"\\"1\\""}'


async def test_a_key_is_of_one_user_and_one_route(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    for user, route, key in [
        (ada, "POST /tasks", "k"),
        (bob, "POST /tasks", "k"),
        (ada, "POST /tasks/bulk", "k"),
        (ada, "POST /tasks", "K"),
    ]:
        assert await claim(database, user.id, route=route, key=key) == "claimed"
        assert await claim(database, user.id, route=route, key=key) == "running"


async def test_one_of_many_concurrent_transactions_claims(database: Database, make: Factory) -> None:
    ada = await make.user()
    for key in "abcde":
        verdicts = await asyncio.gather(*(claim(database, ada.id, key=key, holder=bytes([n])) for n in range(8)))
        assert Counter(verdict or "running" for verdict in verdicts) == {"claimed": 1, "running": 7}


async def test_a_claim_that_waits_for_an_uncommitted_claim_returns_none(database: Database, make: Factory) -> None:
    ada = await make.user()
    async with make.sql.transaction():
        await make.sql.execute(
            "insert into idempotency_keys (user_id, route, key, fingerprint, holder, claimed_until)"
            " values ($1, 'POST /tasks', 'k', 'body', '', now() + interval '1 hour')",
            ada.id,
        )
        waiting = asyncio.create_task(claim(database, ada.id))
        async with asyncio.timeout(10):
            while not await make.sql.fetchval(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            ):
                assert not waiting.done()
    assert await waiting is None
    assert await claim(database, ada.id) == "running"


async def test_the_claim_of_a_dead_process_is_taken_over_for_the_same_body(database: Database, make: Factory) -> None:
    ada = await make.user()
    await claim(database, ada.id)
    await make.sql.execute("update idempotency_keys set claimed_until = now()")
    assert await claim(database, ada.id, holder=OTHER, fingerprint=b"other") == "other"
    assert await claim(database, ada.id, holder=OTHER) == "claimed"
    assert await claim(database, ada.id, holder=OTHER) == "running"
    assert await keep(database, ada.id) == 0
    assert await release(database, ada.id) == 0
    assert await keep(database, ada.id, holder=OTHER) == 1
    await make.sql.execute("update idempotency_keys set claimed_until = now()")
    assert await claim(database, ada.id) == "answered"


async def test_a_takeover_returns_one_row(database: Database, make: Factory) -> None:
    """It is `row?`: of a second one, the service would see whichever comes first."""
    ada = await make.user()
    await claim(database, ada.id)
    await make.sql.execute("update idempotency_keys set claimed_until = now()")
    text = q.idempotency.claim.texts[""]  # type: ignore[attr-defined]
    rows = await make.sql.fetch(text, ada.id, "POST /tasks", "k", b"body", OTHER, 60.0)
    assert [row["verdict"] for row in rows] == ["claimed"]


@pytest.mark.parametrize("answered", [False, True])
async def test_a_key_can_be_reused_after_a_day(database: Database, make: Factory, answered: bool) -> None:
    ada = await make.user()
    await claim(database, ada.id)
    if answered:
        await keep(database, ada.id)
    for age, verdict in (("23 hours 59 minutes", "other"), ("24 hours", "claimed")):
        await make.sql.execute(f"update idempotency_keys set claimed_at = now() - interval '{age}'")
        assert await claim(database, ada.id, holder=OTHER, fingerprint=b"other") == verdict
    row = await make.sql.fetchrow("select *, claimed_at > now() - interval '1 minute' as anew from idempotency_keys")
    assert row
    assert (row["fingerprint"], row["holder"], row["status"], row["body"]) == (b"other", OTHER, None, None)
    assert row["anew"]


async def test_a_failed_claim_is_released_and_a_stored_response_is_not(database: Database, make: Factory) -> None:
    ada = await make.user()
    await claim(database, ada.id)
    assert await release(database, ada.id, holder=OTHER) == 0
    assert await release(database, ada.id) == 1
    assert await claim(database, ada.id) == "claimed"
    await keep(database, ada.id)
    assert await release(database, ada.id) == 0


async def test_keys_a_day_old_are_deleted_oldest_first(database: Database, make: Factory) -> None:
    ada = await make.user()
    for number, age in enumerate(("23 hours", "25 hours", "26 hours", "24 hours")):
        await claim(database, ada.id, key=str(number))
        await make.sql.execute(
            f"update idempotency_keys set claimed_at = now() - interval '{age}' where key = $1", str(number)
        )
    kept = "select array_agg(key order by key) from idempotency_keys"
    assert await q.idempotency.expire(database, row_limit=2) == 2
    assert await make.sql.fetchval(kept) == ["0", "3"]
    assert await q.idempotency.expire(database, row_limit=2) == 1
    assert await q.idempotency.expire(database, row_limit=2) == 0
    assert await make.sql.fetchval(kept) == ["0"]


async def test_a_deleted_account_and_an_invalid_key_claim_nothing(database: Database, make: Factory) -> None:
    ada = await make.user()
    with pytest.raises(UnauthorizedError):
        await claim(database, ada.id + 1)
    for key in ("", "a b", "x" * 256, "é", "a\n"):
        with pytest.raises(InvalidError):
            await claim(database, ada.id, key=key)


async def test_keys_go_with_their_account(database: Database, make: Factory) -> None:
    ada = await make.user()
    await claim(database, ada.id)
    await make.sql.execute("delete from users where id = $1", ada.id)
    assert await make.sql.fetchval("select count(*) from idempotency_keys") == 0
