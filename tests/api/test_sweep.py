"""Files and rows that drift apart, by crashes and by hand, and what the sweep makes of them; in both stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from service.attachments import reconciler
from service.attachments.operations import Attachments
from service.attachments.storage.base import Store
from service.core.errors import UnavailableError
from service.db.pool import Database
from tests.api.test_attachments import added
from tests.api.test_stores import put
from tests.support.attachments import Kind
from tests.support.factories import Factory

DUE = "update attachment_store set sweep_due_at = '-infinity'"
LATER = "update attachment_store set sweep_due_at = 'infinity'"


@pytest.fixture
async def compare(users: Factory, files: Attachments, database: Database) -> Any:
    """Holds files against rows, as if so many days had passed."""

    async def run(*, days: float = 2) -> None:
        with pytest.MonkeyPatch.context() as later:
            later.setattr(reconciler, "ORPHAN_AGE", timedelta(days=1 - days))
            folder = await users.sql.fetchval("select folder from attachment_store")
            await reconciler.compare_folder(
                database, files.store, folder
            )  # at once, though the application's own may have the turn
            await users.sql.execute(LATER)

    return run


async def orphan(make: Factory, store: Store) -> str:
    """Write a file as an upload does that dies before there is a row."""
    folder = await make.sql.fetchval("select folder from attachment_store")
    key = f"{folder}/{token_hex(16)}"
    writing = await store.begin(key)
    await writing.write(b"orphan")
    await writing.finish()
    return key


async def test_only_files_without_a_row_are_deleted_after_a_day(
    users: Factory, files: Attachments, kind: Kind, compare: Any, logged: list[str]
) -> None:
    ada = await users.user()
    task = await users.task(ada)
    made = [await added(ada, task, str(n).encode()) for n in range(3)]
    before = await kind.held(files.store)
    foreign = await put(files.store, b"another database's")
    lost = [await orphan(users, files.store) for _ in range(3)]
    await compare(days=0.9)
    assert await kind.held(files.store) == sorted([*before, *lost, foreign])
    await compare()
    assert await kind.held(files.store) == sorted([*before, foreign])
    assert [line.partition(" ")[0] for line in logged if "orphan files removed" in line] == ["INFO"]
    for one in made:
        assert (await ada.client.get(f"/tasks/{task}/attachments/{one['id']}")).status_code == 200


async def test_a_row_without_a_file_is_reported_and_stays(
    users: Factory, files: Attachments, compare: Any, logged: list[str]
) -> None:
    ada = await users.user()
    task = await users.task(ada)
    made = [await added(ada, task, str(n).encode()) for n in range(4)]
    for one in (made[0], made[2]):
        await files.store.remove(await users.sql.fetchval("select key from attachments where id = $1", one["id"]))
    await compare()
    assert not [
        line for line in logged if "attachment files missing" in line
    ]  # they may have come after the list was read
    await users.sql.execute("update attachments set created_at = now() - interval '2 hours'")
    await compare()
    (line,) = [line for line in logged if "attachment files missing" in line]
    assert line.startswith("ERROR attachment files missing {'count': 2,")
    assert all(str(one["id"]) in line for one in (made[0], made[2]))
    assert await users.sql.fetchval("select count(*) from attachments") == 4


async def test_an_empty_store_is_reported_and_no_row_is_deleted(
    users: Factory, files: Attachments, compare: Any, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await users.user()
    task = await users.task(ada)
    for n in range(5):
        await added(ada, task, str(n).encode())
    for row in await users.sql.fetch("select key from attachments"):
        await files.store.remove(row["key"])
    await users.sql.execute("update attachments set created_at = now() - interval '2 hours'")
    monkeypatch.setattr(reconciler, "BATCH_ROWS", 2)
    monkeypatch.setattr(reconciler, "MAX_LOST", 3)
    await compare()
    assert "attachment files missing {'count': 3," in " ".join(logged)
    assert await users.sql.fetchval("select count(*) from attachments") == 5


async def test_many_files_are_compared_with_many_rows(
    users: Factory,
    files: Attachments,
    kind: Kind,
    compare: Any,
    *,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
) -> None:
    ada = await users.user()
    task = await users.task(ada)
    for n in range(12):
        await added(ada, task, str(n).encode())
    rows = await users.sql.fetch("select id, key from attachments order by key")
    await users.sql.execute("update attachments set created_at = now() - interval '2 hours'")
    lost = [await orphan(users, files.store) for _ in range(12)]
    gone = rows[::3]
    for row in gone:
        await files.store.remove(row["key"])
    monkeypatch.setattr(reconciler, "BATCH_ROWS", 2)
    await compare()
    kept = await kind.held(files.store)
    assert kept == sorted(row["key"] for row in rows if row not in gone)
    assert not set(kept) & set(lost)
    (line,) = [line for line in logged if "attachment files missing" in line]
    assert "'count': 4," in line
    assert all(str(row["id"]) in line for row in gone)


async def test_files_queued_for_removal_are_left_to_the_remover(
    users: Factory, files: Attachments, kind: Kind, compare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "CLAIM_ROWS", 0)
    ada = await users.user()
    task = await users.task(ada)
    await added(ada, task)
    await users.sql.execute("delete from tasks")
    await compare()
    assert len(await kind.held(files.store)) == 1
    assert (await ada.client.post(f"/tasks/{task}/restore")).status_code == 200
    assert len((await ada.client.get(f"/tasks/{task}/attachments")).json()["items"]) == 1


async def test_parts_that_a_dead_writer_left_go_too(
    users: Factory, files: Attachments, kind: Kind, compare: Any
) -> None:
    folder = await users.sql.fetchval("select folder from attachment_store")
    writing = await files.store.begin(f"{folder}/{token_hex(16)}")
    await writing.write(b"x" * 5_300_000)
    assert len(await kind.held(files.store)) == 1
    if kind.name == "folder":  # moto's uploads are all of 2010
        await compare(days=0.9)
        assert len(await kind.held(files.store)) == 1
    await compare()
    assert await kind.held(files.store) == []
    await writing.abandon()


async def test_one_of_two_concurrent_sweeps_does_nothing(
    users: Factory, files: Attachments, database: Database
) -> None:
    listed: list[str] = []

    class Counted:
        async def list_files(self, folder: str) -> AsyncIterator[list[Any]]:
            listed.append(folder)
            yield []
            await asyncio.sleep(0)

        async def remove_unfinished(self, folder: str, *, before: datetime) -> int:
            assert folder == listed[0]
            assert before < datetime.now(UTC)
            return 0

    await users.sql.execute(DUE)
    store: Any = Counted()
    await asyncio.gather(*(reconciler.compare(database, store) for _ in range(5)), return_exceptions=True)
    assert len(listed) == 1
    assert await users.sql.fetchval("select sweep_due_at > now() + interval '59 minutes' from attachment_store")
    await users.sql.execute(LATER)


async def test_a_file_that_cannot_be_removed_now_is_removed_later(
    users: Factory, files: Attachments, kind: Kind, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = reconciler.remove

    async def nothing(*_: object) -> bool:
        return False

    monkeypatch.setattr(reconciler, "remove", nothing)  # of the application's own
    ada = await users.user()
    task = await users.task(ada)
    for n in range(3):
        await added(ada, task, str(n).encode())
    keys = [row["key"] for row in await users.sql.fetch("select key from attachments order by key")]

    class Failing:
        async def remove(self, key: str) -> None:
            if key == keys[1]:
                raise UnavailableError("away")
            await files.store.remove(key)

    store: Any = Failing()
    await users.sql.execute("delete from tasks")
    with pytest.raises(UnavailableError):
        await remove(database, store)
    assert await kind.held(files.store) == [keys[1]]
    assert await users.sql.fetchval("select array_agg(key) from removed_attachments") == [keys[1]]
    assert await remove(database, files.store) is False  # somebody may still be at it
    assert await kind.held(files.store) == [keys[1]]
    await users.sql.execute("update removed_attachments set claimed_until = now()")
    await remove(database, files.store)
    assert await kind.held(files.store) == []
    assert await users.sql.fetchval("select count(*) from removed_attachments") == 0


async def test_a_link_is_no_file_of_ours(tmp_path: Path, kind: Kind, store: Store) -> None:
    if kind.name != "folder":
        pytest.skip("a bucket has no links")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    key = await put(store, b"mine!!")
    place: Path = store._path(key)  # type: ignore[attr-defined]
    place.unlink()
    place.symlink_to(secret)
    with pytest.raises(UnavailableError):
        await anext(store.read(key, size=6, start=0, stop=6))
    assert [page async for page in store.list_files(key.partition("/")[0])] == []
    place.parent.joinpath("..", "x").touch()
    place.parent.parent.joinpath("zz").symlink_to(tmp_path)
    assert [page async for page in store.list_files(key.partition("/")[0])] == []
    await store.remove(key)
    assert secret.read_bytes() == b"secret"
