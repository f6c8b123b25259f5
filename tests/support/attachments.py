"""Both attachment stores, and applications that use them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI

from service.accounts.passwords import Passwords
from service.api.state import AppState
from service.app import create_app
from service.attachments import operations
from service.attachments.operations import Attachments
from service.attachments.storage.base import Store
from tests.conftest import make_settings
from tests.support.factories import Factory
from tests.support.s3_server import S3Server

MAX_ATTACHMENT_BYTES = 6_000_000  # more than one part of an upload to S3


@dataclass(frozen=True)
class Kind:
    """A kind of store: its settings, and access to its content outside the service."""

    name: str
    settings: dict[str, Any]

    async def held(self, store: Store) -> list[str]:
        """Return the sorted keys of all files, of incomplete uploads too."""
        if self.name == "folder":
            root = Path(self.settings["attachments_url"].removeprefix("file://"))
            found = [path for path in root.rglob("*") if path.is_file()]
            return sorted(f"{path.parent.parent.name}/{path.name}" for path in found)
        client: Any = store.client  # type: ignore[attr-defined]
        bucket, _, prefix = self.settings["attachments_url"].removeprefix("s3://").partition("/")
        whole = await client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")
        parts = await client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/")
        return sorted(
            one["Key"].removeprefix(f"{prefix}/") for one in [*whole.get("Contents", ()), *parts.get("Uploads", ())]
        )


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """Yield an S3 server for this worker."""
    with S3Server() as server:
        yield server


def kind_of(name: str, request: pytest.FixtureRequest, folder: Path) -> Kind:
    """Return a store of the test's own; for S3, start the server if it does not run yet."""
    if name == "folder":
        return Kind(name, {"attachments_url": f"file://{folder}"})
    server: S3Server = request.getfixturevalue("s3")
    return Kind(name, server.settings(f"{uuid4().hex}/deep"))


@pytest.fixture(scope="session", params=["folder", "s3"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    """Return each kind of store."""
    return kind_of(request.param, request, tmp_path_factory.mktemp("files") / "not made yet")


@pytest.fixture(scope="session")
async def files_app(kind: Kind, database_url: str) -> AsyncIterator[FastAPI]:
    """Yield a started application that keeps attachments in the store."""
    settings = make_settings(database_url, attachment_max_bytes=MAX_ATTACHMENT_BYTES, **kind.settings)
    app = create_app(settings, passwords=Passwords(cost=4))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def files(files_app: FastAPI, kind: Kind, make: Factory) -> Attachments:
    """Return the attachments service of that application, with an empty store."""
    state: AppState = files_app.state.services
    await empty(state.attachments.store, kind)
    return state.attachments


@pytest.fixture
async def users(files_app: FastAPI, files: Attachments, make: Factory) -> Factory:
    """Return a factory of accounts whose clients call that application."""
    return Factory(make.sql, files_app)


@pytest.fixture
async def store(kind: Kind) -> AsyncIterator[Store]:
    """Yield the store alone, empty."""
    async with operations.opened(make_settings("postgresql://nowhere/none", **kind.settings)) as opened:
        await empty(opened.store, kind)
        yield opened.store


async def empty(store: Store, kind: Kind) -> None:
    """Delete all files and incomplete uploads of a store."""
    if kind.name == "folder":
        for folder in Path(kind.settings["attachments_url"].removeprefix("file://")).iterdir():
            shutil.rmtree(folder)
        return
    client: Any = store.client  # type: ignore[attr-defined]
    bucket, _, prefix = kind.settings["attachments_url"].removeprefix("s3://").partition("/")
    for one in (await client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")).get("Contents", ()):
        await client.delete_object(Bucket=bucket, Key=one["Key"])
    for one in (await client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/")).get("Uploads", ()):
        await client.abort_multipart_upload(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"])
