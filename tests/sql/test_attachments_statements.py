"""The statements of attachments, and the triggers that run when any writer adds or deletes one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from secrets import token_hex
from typing import Any

import asyncpg
import orjson
import pytest

from service.core.errors import InvalidError, UnauthorizedError
from service.core.viewer import Viewer
from service.db.pool import Database
from service.db.queries import q
from tests.support.factories import Factory, User

FILE: dict[str, Any] = {"filename": "a.txt", "content_type": "text/plain", "size": 10, "sha256": "0" * 64}
COLUMNS = {"id", "task_id", "filename", "content_type", "size", "sha256", "created_at"}


def asked(viewer: Viewer) -> dict[str, Any]:
    return {"viewer_id": viewer.id, "viewer_is_admin": viewer.is_admin}


async def folder(make: Factory) -> str:
    return str(await make.sql.fetchval("select folder from attachment_store"))


async def create(db: Database, viewer: Viewer, task: int, **values: Any) -> Any:
    arguments = {"key": f"{'a' * 32}/{token_hex(16)}", "quota": 0, **FILE, **values}
    return await q.attachments.create(db, task_id=task, **asked(viewer), **arguments)


async def made(db: Database, user: User, task: int, **values: Any) -> int:
    row = await create(db, user.viewer, task, **values)
    assert row["verdict"] == "ok"
    return int(row["id"])


async def events(make: Factory) -> list[Any]:
    """Return type, version, actor and changes of each event, as the API shows them."""
    rows = await make.sql.fetch("select type, task, actor_id, changes from task_events order by id")
    return [
        (row["type"], orjson.loads(row["task"])["version"], row["actor_id"], orjson.loads(row["changes"] or "null"))
        for row in rows
    ]


async def test_a_check_reports_the_permission_and_the_used_quota(database: Database, make: Factory) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    task = await make.task(ada)
    for user, verdict in ((ada, "ok"), (bob, "forbidden"), (root, "ok")):
        row = await q.attachments.check_upload(database, task_id=task, **asked(user.viewer))
        assert row
        assert (row["verdict"], row["used"], row["folder"]) == (verdict, 0, await folder(make))
    await made(database, ada, task, size=7)
    await made(database, root, task, size=100)
    await made(database, ada, task, size=5)
    row = await q.attachments.check_upload(database, task_id=task, **asked(ada.viewer))
    assert row
    assert row["used"] == 12
    assert await q.attachments.check_upload(database, task_id=0, **asked(ada.viewer)) is None


async def test_an_attachment_is_created_if_the_viewer_may(database: Database, make: Factory) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    task = await make.task(ada)
    assert (await create(database, bob.viewer, task))["verdict"] == "forbidden"
    assert await create(database, ada.viewer, 0) is None
    assert await make.sql.fetchval("select count(*) from attachments") == 0
    row = await create(database, root.viewer, task, filename="ø")
    assert (row["verdict"], row["task_id"], row["filename"], row["added_by"]) == ("ok", task, "ø", root.id)
    with pytest.raises(InvalidError) as failure:
        await create(database, ada.viewer, task, filename="a/b")
    assert failure.value.pointer == "/file"
    with pytest.raises(UnauthorizedError):
        await create(database, Viewer(id=2**60, is_admin=True), task)


@pytest.mark.parametrize(("quota", "sizes", "verdicts"), [(10, (10, 0, 1), "ok ok full"), (0, (2**40, 1), "ok ok")])
async def test_a_quota_is_full_beyond_its_last_byte(
    database: Database, make: Factory, quota: int, sizes: tuple[int, ...], verdicts: str
) -> None:
    ada = await make.user()
    task = await make.task(ada)
    rows = [await create(database, ada.viewer, task, size=size, quota=quota) for size in sizes]
    assert " ".join(row["verdict"] for row in rows) == verdicts


async def test_an_upload_that_waits_for_the_quota_sees_the_use_of_the_previous_one(
    database: Database, make: Factory
) -> None:
    ada = await make.user()
    task = await make.task(ada)

    async def second() -> str:
        async with database.transaction() as transaction:
            await q.attachments.lock_quota(transaction, user_id=ada.id)
            row = await q.attachments.create(
                transaction, task_id=task, **asked(ada.viewer), **{**FILE, "key": f"{'b' * 32}/{'b' * 32}", "quota": 15}
            )
        assert row
        return row["verdict"]

    async with database.transaction() as transaction:
        await q.attachments.lock_quota(transaction, user_id=ada.id)
        waiting = asyncio.create_task(second())
        async with asyncio.timeout(10):
            while not await make.sql.fetchval("select count(*) from pg_locks where not granted"):
                assert not waiting.done()
        row = await q.attachments.create(
            transaction, task_id=task, **asked(ada.viewer), **{**FILE, "key": f"{'a' * 32}/{'a' * 32}", "quota": 15}
        )
        assert row
        assert row["verdict"] == "ok"
    assert await waiting == "full"


async def test_a_page_is_in_the_order_of_coming(database: Database, make: Factory) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    task, other = await make.task(ada), await make.task(ada)

    async def ids(viewer: Viewer, **page: Any) -> list[Any]:
        rows = await q.attachments.list(
            database, task_id=task, **asked(viewer), **{"after_id": None, "row_limit": 10, **page}
        )
        assert {row["verdict"] for row in rows} <= ({"ok"} if viewer.id != bob.id else {"forbidden"})
        assert all(dict(row).keys() == {*COLUMNS, "verdict", "is_attachment"} for row in rows)
        return [row["id"] for row in rows]

    assert await ids(ada.viewer) == [None]
    first, second, third = [await made(database, ada, task) for _ in range(3)]
    await made(database, ada, other)
    assert await ids(ada.viewer) == await ids(root.viewer) == [first, second, third]
    assert await ids(ada.viewer, row_limit=2) == [first, second]
    assert await ids(ada.viewer, after_id=second) == [third]
    assert await ids(ada.viewer, after_id=third) == [None]
    assert await ids(bob.viewer) == [None]
    task = 0
    assert await ids(ada.viewer) == []


async def test_an_attachment_is_read_and_deleted_if_the_viewer_may(database: Database, make: Factory) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    task, other = await make.task(ada), await make.task(ada)
    one = await made(database, ada, task, key=f"{'a' * 32}/{'c' * 32}")

    async def verdicts(viewer: Viewer, task: int, one: int) -> set[str | None]:
        found: set[str | None] = set()
        for statement in (q.attachments.get, q.attachments.delete):
            row = await statement(database, task_id=task, attachment_id=one, **asked(viewer))
            found.add(row and row["verdict"])
        return found

    assert await verdicts(bob.viewer, task, one) == {"forbidden"}
    assert await verdicts(ada.viewer, other, one) == {"absent"}
    assert await verdicts(ada.viewer, task, one + 1) == {"absent"}
    assert await verdicts(ada.viewer, 0, one) == {None}
    row = await q.attachments.get(database, task_id=task, attachment_id=one, **asked(root.viewer))
    assert row
    assert row["key"] == f"{'a' * 32}/{'c' * 32}"
    deleted = await q.attachments.delete(database, task_id=task, attachment_id=one, **asked(root.viewer))
    assert deleted
    assert deleted["verdict"] == "ok"
    assert await verdicts(ada.viewer, task, one) == {"absent"}
    assert (await events(make))[-1][:3] == ("task.updated", 3, root.id)


async def test_attachments_changed_by_a_dba_change_the_task(make: Factory, database: Database) -> None:
    ada = await make.user()
    task, other = await make.task(ada), await make.task(ada)
    one = await made(database, ada, task)
    await make.sql.execute("delete from task_events")
    await make.sql.execute("update attachments set filename = 'b.txt' where id = $1", one)
    await make.sql.execute("update attachments set filename = filename, added_by = null")
    await make.sql.execute("update attachments set task_id = $1", other)
    await make.sql.execute("delete from attachments")
    row = await make.sql.fetchrow("select * from task_events order by id limit 1")
    assert row
    before, after = orjson.loads(row["changes"])["attachments"]
    assert before == {**after, "filename": "a.txt"}
    assert before.keys() == COLUMNS
    moved = {**after, "task_id": other}
    assert await events(make) == [
        ("task.updated", 3, None, {"attachments": [before, after]}),
        ("task.updated", 4, None, {"attachments": [after, None]}),
        ("task.updated", 2, None, {"attachments": [None, moved]}),
        ("task.updated", 3, None, {"attachments": [moved, None]}),
    ]


async def test_attachments_are_not_truncated(make: Factory) -> None:
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="attachments cannot be truncated"):
        await make.sql.execute("truncate attachments")


@pytest.mark.parametrize(
    "name", ["a", "x" * 255, "\N{GRINNING FACE}" * 255, ".a", "a.", "ש", "a b", "a\u200db", '"%00']
)
async def test_a_name_in_any_script_is_accepted(make: Factory, database: Database, name: str) -> None:
    ada = await make.user()
    assert await made(database, ada, await make.task(ada), filename=name)


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "a/b", "a\\b", "a\nb", "a\x1fb", "\x7f", "\x85", "\u2028", "\u202ea", "\u2066"],
)
async def test_a_name_that_is_a_path_or_cannot_be_shown_is_refused(
    make: Factory, database: Database, name: str
) -> None:
    ada = await make.user()
    with pytest.raises(InvalidError):
        await made(database, ada, await make.task(ada), filename=name)


async def test_a_deleted_account_leaves_its_attachments(make: Factory, database: Database) -> None:
    ada, root, other = await make.user(), await make.admin(), await make.admin()
    task = await make.task(ada)
    await made(database, root, task)
    before = await events(make)
    await make.sql.execute("delete from users where id = $1", root.id)
    assert await make.sql.fetchval("select added_by is null from attachments")
    assert await events(make) == before
    assert other


# What is gone


async def claimed(db: Database, *, seconds: float = 600, row_limit: int = 10) -> list[str]:
    return [row["key"] for row in await q.attachments.claim_removed(db, seconds=seconds, row_limit=row_limit)]


async def keys(make: Factory) -> list[str]:
    return [row["key"] for row in await make.sql.fetch("select key from attachments order by id")]


async def test_a_removed_attachment_is_claimed_once_and_again_after_a_failure(
    make: Factory, database: Database
) -> None:
    ada = await make.user()
    task = await make.task(ada)
    for _ in range(3):
        await made(database, ada, task)
    all_keys = await keys(make)
    await make.sql.execute("delete from attachments")
    first = await claimed(database, row_limit=2)
    assert len(first) == 2
    async with make.sql.transaction():
        await make.sql.execute("select * from removed_attachments where claimed_until is null for update")
        assert await claimed(database) == []  # another has it in hand
    second = await claimed(database)
    assert sorted(first + second) == sorted(all_keys)
    assert await claimed(database) == []
    assert await q.attachments.forget_removed(database, keys=first) == 2
    await make.sql.execute("update removed_attachments set claimed_until = now() - interval '1 second'")
    assert await claimed(database) == second


@pytest.mark.parametrize("how", ["task", "alone"])
async def test_only_what_went_with_its_task_can_come_back_with_it(make: Factory, database: Database, how: str) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    task, other = await make.task(ada), await make.task(ada)
    one = await made(database, ada, task)
    await made(database, ada, other)
    (key, _) = await keys(make)

    async def restorable(viewer: Viewer) -> Sequence[Any]:
        return await q.attachments.restorable(database, task_id=task, **asked(viewer), row_limit=10)

    await make.sql.execute(
        "delete from tasks" if how == "task" else "delete from attachments where id = $1",
        *([one] if how == "alone" else []),
    )
    for viewer in (ada.viewer, root.viewer):
        rows = await restorable(viewer)
        assert [(row["key"], row["is_doubtful"]) for row in rows] == ([(key, False)] if how == "task" else [])
    assert list(await restorable(bob.viewer)) == []
    assert await claimed(database)
    assert list(await restorable(ada.viewer)) == []  # somebody removes it now
    await make.sql.execute("update removed_attachments set claimed_until = now()")
    assert [row["is_doubtful"] for row in await restorable(ada.viewer)] == [True] * (how == "task")


async def test_a_restored_attachment_is_unchanged_and_causes_no_event_of_its_own(
    make: Factory, database: Database
) -> None:
    ada, root, other = await make.user(), await make.admin(), await make.admin()
    task = await make.task(ada)
    await made(database, ada, task, filename="ø", size=0)
    await made(database, root, task)
    await made(database, ada, task)
    before = [dict(row) for row in await make.sql.fetch("select * from attachments order by id")]
    all_keys = await keys(make)
    await make.sql.execute("delete from tasks")
    await make.sql.execute("delete from users where id = $1", root.id)
    async with database.transaction() as transaction:
        await q.tasks.restore(transaction, task_id=task, **asked(ada.viewer))
        assert await q.attachments.restore(transaction, task_id=task, keys=all_keys[:2]) == 2
    after = [dict(row) for row in await make.sql.fetch("select * from attachments order by id")]
    assert after == [before[0], {**before[1], "added_by": None}]
    assert [event[:2] for event in await events(make)][-2:] == [("task.deleted", 5), ("task.restored", 6)]
    assert await make.sql.fetchval("select version from tasks") == 6
    # What stayed behind stays so.
    await make.sql.execute("delete from tasks")
    rows = await q.attachments.restorable(database, task_id=task, **asked(ada.viewer), row_limit=10)
    assert [row["key"] for row in rows] == sorted(all_keys[:2])
    assert other


async def test_a_file_under_removal_is_not_restored(make: Factory, database: Database) -> None:
    ada = await make.user()
    task = await make.task(ada)
    await made(database, ada, task)
    all_keys = await keys(make)
    await make.sql.execute("delete from tasks")
    assert await claimed(database) == all_keys
    async with database.transaction() as transaction:
        await q.tasks.restore(transaction, task_id=task, **asked(ada.viewer))
        assert await q.attachments.restore(transaction, task_id=task, keys=all_keys) == 0
    assert await keys(make) == []


# Files held against rows


async def test_one_process_at_a_time_holds_the_lease(make: Factory, database: Database) -> None:
    await make.sql.execute("update attachment_store set sweep_due_at = now()")
    slot = await q.attachments.acquire_sweep_lease(database, seconds=60, holds_lease=False)
    assert slot
    assert slot["folder"] == await folder(make)
    assert await q.attachments.acquire_sweep_lease(database, seconds=60, holds_lease=False) is None
    assert await q.attachments.acquire_sweep_lease(database, seconds=60, holds_lease=True) == slot
    await make.sql.execute("update attachment_store set sweep_due_at = now() - interval '1 second'")
    assert await q.attachments.acquire_sweep_lease(database, seconds=60, holds_lease=False) == slot


async def test_keys_are_in_their_order_and_of_an_hour_ago(make: Factory, database: Database) -> None:
    ada = await make.user()
    task = await make.task(ada)
    for _ in range(4):
        await made(database, ada, task)
    ordered = sorted(await keys(make))

    async def found(**page: Any) -> list[str]:
        arguments = {"after_key": "", "last_key": None, "row_limit": 10, **page}
        return [row["key"] for row in await q.attachments.keys(database, **arguments)]

    assert await found() == []
    await make.sql.execute("update attachments set created_at = now() - interval '61 minutes'")
    assert await found() == ordered
    assert await found(row_limit=2) == ordered[:2]
    assert await found(after_key=ordered[0], last_key=ordered[2]) == ordered[1:3]


async def test_unknown_is_what_neither_is_there_nor_still_to_be_removed(make: Factory, database: Database) -> None:
    ada = await make.user()
    task = await make.task(ada)
    one = await made(database, ada, task)
    await made(database, ada, task)
    await make.sql.execute("delete from attachments where id = $1", one)
    recorded = await make.sql.fetch("select key from attachments union select key from removed_attachments")
    unknown = {"x", f"{'d' * 32}/{'d' * 32}"}
    rows = await q.attachments.find_orphans(database, keys=[*(row["key"] for row in recorded), *unknown])
    assert {row["key"] for row in rows} == unknown
