"""Attachments over HTTP, in both stores: in, out, listed, deleted, and what listeners hear of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from service.attachments import reconciler
from service.attachments.operations import Attachments
from service.core.errors import NotFoundError
from service.db.pool import Database
from tests.api.test_stores import content_of
from tests.support.attachments import MAX_ATTACHMENT_BYTES, Kind
from tests.support.factories import Factory, User
from tests.support.problems import problem

MEMBERS = ["id", "task_id", "filename", "content_type", "size", "sha256", "created_at"]


async def add(user: User, task: int, content: bytes = b"hello\n", *, name: str = "note.txt") -> httpx.Response:
    return await user.client.post(f"/tasks/{task}/attachments", files={"file": (name, content, "image/png")})


async def added(user: User, task: int, content: bytes = b"hello\n", *, name: str = "note.txt") -> dict[str, Any]:
    answer = await add(user, task, content, name=name)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def removals_left(database: Database) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval("select count(*) from removed_attachments"))


async def wait_for_removals(files: Attachments, database: Database, *, woken: bool = True) -> None:
    """Wait until nothing is left to be removed; woken: as if a minute had passed."""
    async with asyncio.timeout(20):
        while await removals_left(database):
            if woken:
                files.removed.set()
            await asyncio.sleep(0.02)


async def test_a_file_is_downloaded_unchanged(users: Factory) -> None:
    ada = await users.user()
    task = await users.task(ada)
    for size in (0, 1, 999_999, 1_000_000, 1_000_001, MAX_ATTACHMENT_BYTES):
        content = content_of(size)
        answer = await add(ada, task, content)
        assert answer.status_code == 201
        one = answer.json()
        assert list(one) == MEMBERS
        assert (one["task_id"], one["filename"], one["size"]) == (task, "note.txt", size)
        assert one["sha256"] == hashlib.sha256(content).hexdigest()
        assert answer.headers["Location"] == f"/tasks/{task}/attachments/{one['id']}"
        got = await ada.client.get(answer.headers["Location"])
        assert got.status_code == 200
        assert got.content == content
        assert got.headers["Content-Length"] == str(size)
        assert got.headers["ETag"] == f'"{one["sha256"]}"'


async def test_a_download_has_headers_that_prevent_execution(users: Factory) -> None:
    ada = await users.user()
    task = await users.task(ada)
    one = await added(ada, task, b"<!DOCTYPE html><script>alert(1)</script>", name="x.html")
    got = await ada.client.get(f"/tasks/{task}/attachments/{one['id']}")
    assert got.headers["Content-Disposition"] == "attachment; filename=\"x.html\"; filename*=UTF-8''x.html"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in got.headers["Content-Security-Policy"]
    assert "default-src 'none'" in got.headers["Content-Security-Policy"]
    assert got.headers["Content-Type"] == one["content_type"] == "text/html"


async def test_the_media_type_is_what_the_content_shows_and_not_what_was_claimed(users: Factory) -> None:
    ada = await users.user()
    task = await users.task(ada)
    assert (await added(ada, task, b"hello\n"))["content_type"] == "text/plain"
    assert (await added(ada, task, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", name="a.png"))["content_type"] == "application/pdf"


async def test_pages_of_a_list_are_all_of_it(users: Factory) -> None:
    ada, root = await users.user(), await users.admin()
    task, other = await users.task(ada), await users.task(ada)
    assert (await ada.client.get(f"/tasks/{task}/attachments")).json() == {"items": [], "next_cursor": None}
    made = [await added(ada, task, str(n).encode()) for n in range(5)]
    await added(ada, other)
    assert (await root.client.get(f"/tasks/{task}/attachments")).json() == {"items": made, "next_cursor": None}
    page = await ada.client.get(f"/tasks/{task}/attachments?limit=2")
    assert page.json()["items"] == made[:2]
    page = await ada.client.get(page.headers["Link"].partition(">")[0].removeprefix("<"))
    assert page.json()["items"] == made[2:4]
    cursor = page.json()["next_cursor"]
    page = await ada.client.get(f"/tasks/{task}/attachments?limit=2&cursor={cursor}")
    assert page.json() == {"items": made[4:], "next_cursor": None}
    problem(await ada.client.get(f"/tasks/{other}/attachments?cursor={cursor}"), 422, pointers={"/query/cursor"})
    for query in ("limit=0", "limit=101", "cursor=x", "offset=1"):
        problem(await ada.client.get(f"/tasks/{task}/attachments?{query}"), 422)


async def test_attachment_rights_follow_the_task(
    users: Factory, client: httpx.AsyncClient, files: Attachments, kind: Kind
) -> None:
    ada, bob, root = await users.user(), await users.user(), await users.admin()
    task, bobs = await users.task(ada), await users.task(bob)
    one = await added(ada, task)
    path = f"/tasks/{task}/attachments/{one['id']}"
    for user, status in ((bob, 403), (ada, 200), (root, 200)):
        for asked in (path, f"/tasks/{task}/attachments"):
            assert (await user.client.get(asked)).status_code == status
    problem(await add(bob, task), 403)
    problem(await bob.client.delete(path), 403)
    for user in (ada, root):
        problem(await add(user, 2**60), 404)
        for method in ("GET", "DELETE"):
            problem(await user.client.request(method, f"/tasks/{2**60}/attachments/{one['id']}"), 404)
            problem(await user.client.request(method, f"/tasks/{task}/attachments/{2**60}"), 404)
            problem(
                await user.client.request(method, f"/tasks/{bobs}/attachments/{one['id']}"),
                404 if user is root else 403,
            )
        problem(await user.client.get(f"/tasks/{2**60}/attachments"), 404)
    assert len(await kind.held(files.store)) == 1
    assert (await add(root, task)).status_code == 201


async def test_an_administrator_uses_the_own_quota_and_makes_the_owners_change(users: Factory) -> None:
    ada, root = await users.user(), await users.admin()
    task = await users.task(ada)
    await added(root, task)
    (event, _) = (await ada.client.get(f"/tasks/{task}/history")).json()["items"]
    assert (event["actor_id"], event["user_id"]) == (root.id, ada.id)
    assert await users.sql.fetchval("select added_by from attachments") == root.id


async def test_an_added_or_removed_attachment_is_a_change_of_the_task(users: Factory) -> None:
    ada = await users.user()
    task = (await ada.client.post("/tasks", json={"title": "x"})).json()
    path = f"/tasks/{task['id']}"
    cursor = (await ada.client.get("/events")).json()["cursor"]
    one = await added(ada, task["id"])
    changed = await ada.client.get(path)
    assert changed.headers["ETag"] == '"2"'
    assert changed.json()["updated_at"] > task["updated_at"]
    assert (await ada.client.delete(f"{path}/attachments/{one['id']}")).status_code == 204
    assert (await ada.client.get(path)).headers["ETag"] == '"3"'
    came, went = (await ada.client.get("/events", params={"since": cursor})).json()["items"]
    for event in (came, went):
        assert (event["type"], event["task_id"], event["actor_id"]) == ("task.updated", task["id"], ada.id)
    assert came["changes"] == {"attachments": [None, one]}
    assert went["changes"] == {"attachments": [one, None]}
    assert [came["task"]["version"], went["task"]["version"]] == [2, 3]
    history = (await ada.client.get(f"{path}/history")).json()["items"]
    assert [one.get("changes") for one in history] == [went["changes"], came["changes"], None]


async def test_a_deleted_attachment_is_gone_with_its_file(
    users: Factory, files: Attachments, kind: Kind, database: Database
) -> None:
    ada = await users.user()
    task = await users.task(ada)
    kept, one = await added(ada, task), await added(ada, task)
    path = f"/tasks/{task}/attachments/{one['id']}"
    assert (await ada.client.delete(path)).status_code == 204
    problem(await ada.client.get(path), 404)
    problem(await ada.client.delete(path), 404)
    assert (await ada.client.get(f"/tasks/{task}/attachments")).json()["items"] == [kept]
    await wait_for_removals(files, database, woken=False)
    assert len(await kind.held(files.store)) == 1


@pytest.mark.parametrize("by", ["the API", "psql"])
async def test_the_files_of_a_deleted_task_are_removed_after_the_commit(
    users: Factory, files: Attachments, kind: Kind, database: Database, by: str
) -> None:
    ada = await users.user()
    task, other = await users.task(ada), await users.task(ada)
    for n in range(3):
        await added(ada, task, str(n).encode())
    await added(ada, other)
    if by == "psql":
        await users.sql.execute("delete from tasks where id = $1", task)
    else:
        await ada.client.delete(f"/tasks/{task}")
    await wait_for_removals(files, database, woken=by == "psql")
    assert len(await kind.held(files.store)) == 1
    assert [one["type"] for one in (await ada.client.get(f"/tasks/{task}/history?limit=1")).json()["items"]] == [
        "task.deleted"
    ]


async def test_a_restored_task_gets_back_what_is_still_there(
    users: Factory, files: Attachments, kind: Kind, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await users.user()
    task = await users.task(ada)
    made = [await added(ada, task, str(n).encode()) for n in range(4)]
    keys = [row["key"] for row in await users.sql.fetch("select key from attachments order by id")]
    await users.sql.execute("delete from attachments where id = $1", made[3]["id"])  # went before, and alone
    async with users.sql.transaction():  # so that no other process comes between
        await users.sql.execute("delete from tasks")
        # Nobody has tried to remove the first one's file; of two others somebody has, and died behind or before it.
        await users.sql.execute("update removed_attachments set claimed_until = now() where key <> $1", keys[0])
        await users.sql.execute("update removed_attachments set claimed_until = 'infinity' where key = $1", keys[3])
        await files.store.remove(keys[1])
        monkeypatch.setattr(reconciler, "CLAIM_ROWS", 0)
    restored = await ada.client.post(f"/tasks/{task}/restore")
    assert restored.status_code == 200
    assert restored.json()["version"] == 8
    listed = (await ada.client.get(f"/tasks/{task}/attachments")).json()["items"]
    assert listed == [made[0], made[2]]
    for one in listed:
        assert (await ada.client.get(f"/tasks/{task}/attachments/{one['id']}")).status_code == 200
    assert (await ada.client.get(f"/tasks/{task}")).json()["version"] == 8
    # What stayed behind does not come another time, whatever becomes of its file.
    assert await users.sql.fetchval("select bool_or(with_task) from removed_attachments") is False
    await users.sql.execute("update removed_attachments set claimed_until = null")
    monkeypatch.undo()
    await wait_for_removals(files, database)
    assert await kind.held(files.store) == sorted([keys[0], keys[2]])


async def test_only_users_who_may_restore_a_task_restore_its_files(
    users: Factory, files: Attachments, database: Database
) -> None:
    ada, bob = await users.user(), await users.user()
    task = await users.task(ada)
    await added(ada, task)
    await users.sql.execute("delete from tasks")
    problem(await bob.client.post(f"/tasks/{task}/restore"), 403)
    assert await users.sql.fetchval("select count(*) from attachments") == 0


async def test_a_task_deleted_during_an_upload_leaves_no_file(users: Factory, files: Attachments, kind: Kind) -> None:
    ada = await users.user()
    task = await users.task(ada)

    class Sent:
        async def name(self) -> str:
            return "x"

        async def content(self) -> AsyncIterator[bytes]:
            yield content_of(5_500_000)
            await users.sql.execute("delete from tasks")

    with pytest.raises(NotFoundError):
        await files.add(users.app.state.services.db, ada.viewer, task, Sent())
    assert await kind.held(files.store) == []
    assert await users.sql.fetchval("select count(*) from removed_attachments") == 0


async def test_a_download_that_has_begun_outlives_its_attachment(
    users: Factory, files: Attachments, database: Database
) -> None:
    ada = await users.user()
    task = await users.task(ada)
    content = content_of(3_000_000)
    one = await added(ada, task, content)
    record = await files.get(database, ada.viewer, task, one["id"])
    with files.reading(database, ada.viewer, record, start=0, stop=len(content)) as reading:
        async with aclosing(reading) as pieces:
            first = await anext(pieces)
            await ada.client.delete(f"/tasks/{task}/attachments/{one['id']}")
            await wait_for_removals(files, database)
            assert first + b"".join([piece async for piece in pieces]) == content


async def test_many_attachments_are_added_and_deleted_concurrently(
    users: Factory, files: Attachments, kind: Kind, database: Database
) -> None:
    ada = await users.user()
    task = await users.task(ada)

    async def come_and_go(n: int) -> None:
        one = await added(ada, task, str(n).encode())
        got, gone = await asyncio.gather(
            ada.client.get(f"/tasks/{task}/attachments/{one['id']}"),
            ada.client.delete(f"/tasks/{task}/attachments/{one['id']}"),
        )
        assert gone.status_code == 204
        assert (got.status_code, got.content) == (200, str(n).encode()) or got.status_code == 404

    for _ in range(5):
        await asyncio.gather(*(come_and_go(n) for n in range(6)))
    await wait_for_removals(files, database)
    assert await kind.held(files.store) == []
    events = (await ada.client.get(f"/tasks/{task}/history?limit=100")).json()["items"]
    assert [one["task"]["version"] for one in events] == list(range(61, 0, -1))


# How much


async def test_a_body_over_the_limit_is_refused_while_it_arrives(
    users: Factory, files: Attachments, kind: Kind
) -> None:
    ada = await users.user()
    task = await users.task(ada)

    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    for size, status in (
        (MAX_ATTACHMENT_BYTES, 201),
        (MAX_ATTACHMENT_BYTES + 1, 413),
        (MAX_ATTACHMENT_BYTES + 200_000, 413),
    ):
        request = ada.client.build_request("POST", "/", files={"file": ("x", content_of(size))})
        kinds = {"Content-Type": request.headers["Content-Type"]}
        for body in (request.read(), pieces(request.read())):
            answer = await ada.client.post(f"/tasks/{task}/attachments", content=body, headers=kinds)
            assert answer.status_code == status
            if status == 413:
                assert problem(answer, 413)["code"] == "too_large"
    assert len(await kind.held(files.store)) == 2
    assert await users.sql.fetchval("select count(*) from attachments") == 2


@pytest.fixture
def quota(files: Attachments, monkeypatch: pytest.MonkeyPatch) -> int:
    """A quota of a hundred bytes."""
    monkeypatch.setattr(files, "_quota_bytes", 100)
    return 100


async def test_a_quota_is_enforced_and_its_rest_reported(
    users: Factory, files: Attachments, kind: Kind, quota: int, database: Database
) -> None:
    ada, bob, root = await users.user(), await users.user(), await users.admin()
    task, bobs = await users.task(ada), await users.task(bob)
    one = await added(ada, task, b"x" * 60)
    refused = problem(await add(ada, task, b"x" * 41), 413)
    assert refused["code"] == "quota_exceeded"
    assert "40 bytes are left" in refused["detail"]
    await added(ada, task, b"x" * 40)
    assert "0 bytes are left" in problem(await add(ada, task, b"x"), 413)["detail"]
    await added(ada, task, b"")
    await added(root, task, b"x" * 100)  # who adds it has it
    await added(bob, bobs, b"x" * 100)
    await ada.client.delete(f"/tasks/{task}/attachments/{one['id']}")
    await added(ada, task, b"x" * 60)
    await wait_for_removals(files, database)
    assert len(await kind.held(files.store)) == 5


async def test_concurrent_uploads_do_not_exceed_the_quota(
    users: Factory, files: Attachments, kind: Kind, quota: int
) -> None:
    ada = await users.user()
    task, other = await users.task(ada), await users.task(ada)
    answers = await asyncio.gather(*(add(ada, [task, other][n % 2], b"x" * 30) for n in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [413] * 3
    assert await users.sql.fetchval("select sum(size) from attachments") == 90
    assert len(await kind.held(files.store)) == 3


async def test_one_user_uses_only_a_share_of_the_upload_slots(users: Factory, files: Attachments) -> None:
    ada, bob = await users.user(), await users.user()
    task, bobs = await users.task(ada), await users.task(bob)
    going_on = asyncio.Event()

    kind_of_body = "multipart/form-data; boundary=" + "b" * 32
    request = ada.client.build_request(
        "POST", "/", files={"file": ("x", b"slow")}, headers={"Content-Type": kind_of_body}
    )
    assert request.headers["Content-Type"] == kind_of_body

    async def body() -> AsyncIterator[bytes]:
        yield request.read()[:-10]
        await going_on.wait()
        yield request.read()[-10:]

    path = f"/tasks/{task}/attachments"
    running = [
        asyncio.create_task(ada.client.post(path, content=body(), headers={"Content-Type": kind_of_body}))
        for _ in range(6)
    ]
    async with asyncio.timeout(20):
        while files._uploads._slots.used < 6:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    refused = await add(ada, task)
    assert int(refused.headers["Retry-After"]) > 0
    problem(refused, 503)
    await added(bob, bobs)
    waiting = asyncio.create_task(add(ada, task))
    going_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*running, waiting)] == [201] * 7
    await added(ada, task)
    assert files._uploads._slots.used == 0


# What is missing


async def test_a_row_without_its_file_is_unavailable_and_not_missing(users: Factory, files: Attachments) -> None:
    ada = await users.user()
    task = await users.task(ada)
    one = await added(ada, task)
    await files.store.remove(await users.sql.fetchval("select key from attachments"))
    for headers in ({}, {"Range": "bytes=0-1"}):
        answer = await ada.client.get(f"/tasks/{task}/attachments/{one['id']}", headers=headers)
        problem(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0
    assert (await ada.client.delete(f"/tasks/{task}/attachments/{one['id']}")).status_code == 204


async def test_a_file_deleted_between_its_row_and_its_first_byte_is_not_found(
    users: Factory, files: Attachments, database: Database
) -> None:
    ada = await users.user()
    task = await users.task(ada)
    one = await added(ada, task)
    record = await files.get(database, ada.viewer, task, one["id"])
    await ada.client.delete(f"/tasks/{task}/attachments/{one['id']}")
    await wait_for_removals(files, database)
    with files.reading(database, ada.viewer, record, start=0, stop=6) as pieces, pytest.raises(NotFoundError):
        await anext(pieces)


async def test_names_are_the_clients_and_no_paths(users: Factory, files: Attachments) -> None:
    ada = await users.user()
    task = await users.task(ada)
    for sent_name, kept in (
        ("отчёт за май.pdf", "отчёт за май.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\a.txt", "a.txt"),
        ('a "quoted" \N{GRINNING FACE}%41;=.txt', 'a "quoted" \N{GRINNING FACE}%41;=.txt'),
        ("ש" * 255, "ש" * 255),
        (".hidden", ".hidden"),
        ("a\u200cb", "a\u200cb"),
    ):
        one = await added(ada, task, name=sent_name)
        assert one["filename"] == kept
        got = await ada.client.get(f"/tasks/{task}/attachments/{one['id']}")
        encoded_name = got.headers["Content-Disposition"].partition("filename*=UTF-8''")[2]
        assert httpx.QueryParams(f"x={encoded_name.replace('+', '%2B')}")["x"] == kept
    for refused in ("", " ", ".", "..", "x/", "a\nb", "x\u202egnp.exe", "a\u2028b", "x" * 256):
        problem(await add(ada, task, name=refused), 422)
    assert await users.sql.fetchval("select count(*) from attachments") == 7
