"""A store that is unavailable, disconnected, silent, full or not writable is reported and keeps no partial file."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from service.attachments import operations, reconciler, storage
from service.attachments.operations import Attachments
from service.attachments.storage import s3 as bucket
from service.attachments.storage.local import LocalFolder
from service.attachments.storage.s3 import PART_BYTES
from service.core.errors import StartError, UnavailableError
from service.core.settings import Settings
from tests.api.test_stores import FOLDER, content_of, got, put
from tests.conftest import make_settings
from tests.support.attachments import Kind
from tests.support.factories import Factory
from tests.support.gates import Gate, gate
from tests.support.problems import problem
from tests.support.s3_server import S3Server

HOW = ("refused", "cut", "silent")


@pytest.fixture
async def door(s3: S3Server) -> AsyncIterator[Gate]:
    """A gate before S3."""
    async with gate(f"http://x@127.0.0.1:{s3.port}") as open_gate:
        yield open_gate


@pytest.fixture
async def files(s3: S3Server, door: Gate, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Attachments]:
    """Attachments in S3 through the gate, with short timeouts."""
    monkeypatch.setattr(bucket, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(bucket, "READ_SECONDS", 0.5)
    monkeypatch.setattr(bucket, "CALL_SECONDS", 3)
    url = door.url.replace("x@", "")
    settings = make_settings("postgresql://nowhere/none", **s3.settings(token_hex(8), url=url))
    async with operations.opened(settings) as opened:
        yield opened


@pytest.mark.parametrize("how", HOW)
async def test_operations_fail_while_s3_is_unavailable_and_work_when_it_returns(
    files: Attachments, door: Gate, how: str
) -> None:
    store = files.store
    key, other = await put(store, b"before"), await put(store, b"other")
    await door.shut(how)
    calls: list[Any] = [
        lambda: put(store, b"x"),
        lambda: put(store, content_of(PART_BYTES + 1)),
        lambda: got(store, key, size=6),
        lambda: store.exists(key),
        lambda: store.remove(other),
        lambda: anext(aiter(store.list_files(FOLDER))),
    ]
    for call in calls:
        with pytest.raises(UnavailableError) as failure:
            await call()
        assert failure.value.retry_after > 0
        assert "tests-secret" not in repr(failure.value.__cause__)
    await door.open()
    assert await got(store, key, size=6) == b"before"
    assert await put(store, content_of(PART_BYTES + 1))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("parts", [0, 1])
async def test_an_upload_interrupted_by_s3_is_aborted_when_s3_returns(
    files: Attachments, door: Gate, s3: S3Server, how: str, parts: int
) -> None:
    writing = await files.store.begin(f"{FOLDER}/{token_hex(16)}")
    await writing.write(content_of(PART_BYTES * parts + 1))
    await door.shut(how)
    with pytest.raises(UnavailableError):
        await writing.finish()
    await writing.abandon()  # cannot, and says so
    await door.open()
    await writing.abandon()
    kind = Kind("s3", {"attachments_url": f"s3://attachments/{files.store._prefix[:-1]}"})  # type: ignore[attr-defined]
    assert await kind.held(files.store) == []


async def test_a_download_that_s3_leaves_ends_with_an_error(files: Attachments, door: Gate) -> None:
    content = content_of(40_000_000)
    key = await put(files.store, content)
    async with aclosing(files.store.read(key, size=len(content), start=0, stop=len(content))) as pieces:
        read = len(await anext(pieces))
        await door.shut("cut")
        with pytest.raises(UnavailableError):
            read += sum([len(piece) async for piece in pieces])
    assert read < len(content)


async def test_a_task_comes_back_once_the_store_can_say_which_files_are_there(
    make: Factory, files: Attachments, door: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file left at this point would not be removed later."""
    ada, bob = await make.user(), await make.user()
    task = await make.task(ada)
    monkeypatch.setattr(make.app.state.services.attachments, "store", files.store)
    monkeypatch.setattr(reconciler, "CLAIM_ROWS", 0)
    one = (await ada.client.post(f"/tasks/{task}/attachments", files={"file": b"x"})).json()
    async with make.sql.transaction():
        await make.sql.execute("delete from tasks")
        await make.sql.execute("update removed_attachments set claimed_until = now()")  # somebody has tried
    await door.shut("cut")
    problem(await ada.client.post(f"/tasks/{task}/restore"), 503)
    problem(await bob.client.post(f"/tasks/{task}/restore"), 403)
    await door.open()
    assert (await ada.client.post(f"/tasks/{task}/restore")).status_code == 200
    assert (await ada.client.get(f"/tasks/{task}/attachments")).json()["items"] == [one]


async def test_a_client_gets_retry_after(
    make: Factory, files: Attachments, door: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await make.user()
    task = await make.task(ada)
    path = f"/tasks/{task}/attachments"
    state = make.app.state.services
    monkeypatch.setattr(state.attachments, "store", files.store)
    one = (await ada.client.post(path, files={"file": b"x"})).json()
    await door.shut("cut")
    answers = [
        await ada.client.post(path, files={"file": b"x"}),
        await ada.client.post(path, files={"file": content_of(PART_BYTES + 1)}),
        await ada.client.get(f"{path}/{one['id']}"),
    ]
    for answer in answers:
        assert problem(answer, 503)["code"] == "unavailable"
        assert int(answer.headers["Retry-After"]) > 0
    # What needs no bytes goes on.
    assert (await ada.client.get(path)).json()["items"] == [one]
    assert (await ada.client.head(f"{path}/{one['id']}")).status_code == 200
    assert (await ada.client.delete(f"/tasks/{task}")).status_code == 204
    assert (await ada.client.post(f"/tasks/{task}/restore")).status_code == 200
    await door.open()


@pytest.mark.parametrize(
    "wrong", [{"attachments_url": "s3://no-such-bucket"}, {"s3_endpoint_url": "http://127.0.0.1:1"}]
)
async def test_a_missing_bucket_is_reported_as_unavailable(s3: S3Server, wrong: dict[str, str]) -> None:
    settings = make_settings("postgresql://nowhere/none", **{**s3.settings("x"), **wrong})
    async with operations.opened(settings) as opened:
        for call in (
            put(opened.store, b"x"),
            opened.store.exists("x") if "s3_endpoint_url" in wrong else put(opened.store, b""),
        ):
            with pytest.raises(UnavailableError):
                await call


def test_without_the_library_s3_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(storage, "s3")
    monkeypatch.delitem(sys.modules, "service.attachments.storage.s3")
    monkeypatch.setitem(sys.modules, "aiobotocore.session", None)
    settings = Settings(_env_file=None, attachments_url="s3://bucket")  # type: ignore[call-arg]
    with pytest.raises(StartError, match="takes aiobotocore, which is not installed"):
        operations.check_storage(settings)
    operations.check_storage(Settings(_env_file=None))  # type: ignore[call-arg]


# A folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount, and not in every container")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def refused_as_full(store: LocalFolder, root: Path) -> None:
    key = f"{FOLDER}/{token_hex(16)}"
    writing = await store.begin(key)

    async def write() -> None:
        for _ in range(40):
            await writing.write(content_of(65_536))
        await writing.finish()

    with pytest.raises(UnavailableError, match="full"):
        await write()
    await writing.abandon()
    assert not [path for path in root.rglob("*") if path.is_file()]


async def test_a_full_disk_is_reported_and_leaves_no_file(small_disk: Path) -> None:
    store = LocalFolder(small_disk)
    await refused_as_full(store, small_disk)
    assert await got(store, await put(store, content_of(500_000)), size=500_000)
    store.close()


async def test_a_system_file_size_limit_is_reported_as_full(tmp_path: Path) -> None:
    store = LocalFolder(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        await refused_as_full(store, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert await got(store, await put(store, content_of(2_000_000)), size=2_000_000)
    store.close()


async def test_a_full_disk_is_reported_to_the_client(
    make: Factory, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}/attachments"
    store = LocalFolder(small_disk)
    monkeypatch.setattr(make.app.state.services.attachments, "store", store)
    answer = await ada.client.post(path, files={"file": content_of(1_500_000)})
    assert "full" in problem(answer, 503)["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert not [one for one in small_disk.rglob("*") if one.is_file()]
    assert (await ada.client.post(path, files={"file": content_of(900_000)})).status_code == 201
    store.close()


@pytest.mark.parametrize("kind", ["a file", "nowhere"])
async def test_a_path_that_is_no_folder_is_reported_as_unavailable(tmp_path: Path, kind: str) -> None:
    tmp_path.joinpath("file").touch()
    store = LocalFolder(tmp_path / "file" / "folder" if kind == "a file" else Path("/proc/no/folder"))
    with pytest.raises(UnavailableError, match="unavailable"):
        await store.begin(f"{FOLDER}/{token_hex(16)}")
    store.close()


async def test_an_unreadable_file_is_reported_as_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalFolder(tmp_path)
    key = await put(store, b"x")

    def fail(*_: object) -> bytes:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(UnavailableError, match="unavailable"):
        await got(store, key, size=1)
    store.close()


async def test_a_write_that_is_cancelled_is_not_left_running(tmp_path: Path) -> None:
    """Else what is closed and removed next would still be written to."""
    store = LocalFolder(tmp_path)
    begun, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> str:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        return "done"

    running = asyncio.create_task(store.run(slow))
    await begun.wait()
    running.cancel()
    for _ in range(10):  # turns of the loop, in which it would end
        await asyncio.sleep(0)
    assert not running.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    store.close()


async def test_a_removed_folder_is_reported_as_unavailable_and_not_recreated(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = LocalFolder(root)
    key = f"{'0' * 32}/{'1' * 32}"
    part = await store.begin(key)
    await part.write(b"x")
    await part.finish()
    root.rename(tmp_path / "elsewhere")
    for work in (store.begin(key), store.exists(key), store.remove(key)):
        with pytest.raises(UnavailableError):
            await work
    assert not root.exists()
    (tmp_path / "elsewhere").rename(root)
    assert await store.exists(key)
    await store.remove(key)
    await store.remove(key)
    assert not await store.exists(key)
    store.close()
