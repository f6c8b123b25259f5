"""Files in a bucket of S3, or of what speaks its protocol; small ones whole, others in parts."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError
from loguru import logger

from service.attachments.storage.base import CHUNK_BYTES, Found, away, missing
from service.core.errors import UnavailableError
from service.core.settings import Settings

PART_BYTES = 5 * 1024 * 1024  # the protocol's least
CONNECTIONS = 128
CONNECT_SECONDS, READ_SECONDS, CALL_SECONDS, TRIES = 3, 10, 60, 2
ABSENT = {"404", "NoSuchKey", "NoSuchUpload"}
NAME = re.compile(r"[0-9a-f]{32}/[0-9a-f]{32}")


class S3Bucket:
    """The store."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def named(self, key: str) -> dict[str, str]:
        """Give what names a file in the protocol."""
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    async def begin(self, key: str) -> _Parts:
        """Begin to write a file; nothing is sent before there is a part."""
        return _Parts(self, key)

    async def read(self, key: str, *, size: int, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Give bytes of a file."""
        part = {} if (start, stop) == (0, size) else {"Range": f"bytes={start}-{stop - 1}"}
        try:
            async with translated():
                answer = await self.client.get_object(**self.named(key), **part)
        except _AbsentError:
            raise missing(key) from LookupError(key)
        async with answer["Body"] as body:
            whole = answer.get("ContentRange", f"/{answer['ContentLength']}").rpartition("/")[2]
            if (whole, answer["ContentLength"]) != (str(size), stop - start):
                raise missing(key)
            while start < stop:
                async with translated():
                    data = await body.read(CHUNK_BYTES)
                    if not data:
                        raise ConnectionError("the file ended early")
                start += len(data)
                yield data

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        try:
            async with translated():
                await self.client.head_object(**self.named(key))
        except _AbsentError:
            return False
        return True

    async def remove(self, key: str) -> None:
        """Take a file away."""
        with suppress(_AbsentError):
            async with translated():
                await self.client.delete_object(**self.named(key))

    async def listed(self, folder: str) -> AsyncIterator[list[Found]]:
        """Give a folder's files, a page at a time."""
        async for page in self._pages("list_objects_v2", folder):
            entries = [(one["Key"].removeprefix(self._prefix), one["LastModified"]) for one in page.get("Contents", ())]
            if found := [Found(key, modified_at) for key, modified_at in entries if NAME.fullmatch(key)]:
                yield found

    async def clear(self, folder: str, *, before: datetime) -> int:
        """Abort uploads that never came to an end: their parts take room that no list of files shows."""
        cleared = 0
        async for page in self._pages("list_multipart_uploads", folder):
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] < before:
                    with suppress(_AbsentError):
                        async with translated():
                            await self.client.abort_multipart_upload(
                                Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                            )
                    cleared += 1
        return cleared

    async def _pages(self, operation: str, folder: str) -> AsyncIterator[Any]:
        pages = self.client.get_paginator(operation).paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/")
        iterator = aiter(pages)
        while True:
            async with translated():
                page = await anext(iterator, None)
            if page is None:
                return
            yield page


class _Parts:
    """A file of which parts are sent, each as soon as it is large enough."""

    def __init__(self, bucket: S3Bucket, key: str) -> None:
        self._client = bucket.client
        self._named = bucket.named(key)
        self._waiting = bytearray()
        self._upload: dict[str, str] = {}
        self._parts: list[dict[str, Any]] = []
        self._may_be_there = False

    async def write(self, data: bytes) -> None:
        """Send it with the next part."""
        self._waiting += data
        if len(self._waiting) >= PART_BYTES:
            await self._send()

    async def finish(self) -> None:
        """Send the rest, and make a file of the parts; a file of one is sent whole."""
        if not self._upload:
            self._may_be_there = True
            async with translated():
                await self._client.put_object(**self._named, Body=self._body())
            return
        if self._waiting:
            await self._send()
        self._may_be_there = True
        async with translated():
            await self._client.complete_multipart_upload(
                **self._named, **self._upload, MultipartUpload={"Parts": self._parts}
            )

    async def abandon(self) -> None:
        """Abort it; what was finished without our hearing of it is removed."""
        try:
            if self._upload:
                with suppress(_AbsentError):
                    async with translated():
                        await self._client.abort_multipart_upload(**self._named, **self._upload)
            if self._may_be_there:
                with suppress(_AbsentError):
                    async with translated():
                        await self._client.delete_object(**self._named)
        except UnavailableError as error:  # the sweep does it later
            logger.bind(cause=repr(error.__cause__)).warning("attachments: an upload was not taken back")

    def _body(self) -> io.BytesIO:
        body = io.BytesIO(self._waiting)
        self._waiting = bytearray()
        return body

    async def _send(self) -> None:
        async with translated():
            if not self._upload:
                begun = await self._client.create_multipart_upload(**self._named)
                self._upload = {"UploadId": begun["UploadId"]}
            number = len(self._parts) + 1
            sent = await self._client.upload_part(**self._named, **self._upload, PartNumber=number, Body=self._body())
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})


class _AbsentError(Exception):
    """The store says that there is no such thing."""


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Let the service's errors come out of calls to the store, CALL_SECONDS later at most.

    The library waits for ever where what it sends is not taken.
    """
    try:
        async with asyncio.timeout(CALL_SECONDS):
            yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ABSENT:
            raise _AbsentError from error
        raise away(error) from error
    except (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise away(error) from error


@asynccontextmanager
async def opened(given: Settings) -> AsyncIterator[S3Bucket]:
    """Open the bucket with one client for the life of the process."""
    bucket, _, prefix = given.attachments_url.removeprefix("s3://").partition("/")
    # What is not set here is found by the library: in the environment, in files, or asked of the machine's own cloud.
    async with get_session().create_client(
        "s3",
        endpoint_url=given.s3_endpoint_url or None,
        region_name=given.aws_region or None,
        aws_access_key_id=given.aws_access_key_id or None,
        aws_secret_access_key=given.aws_secret_access_key.get_secret_value() or None,
        aws_session_token=given.aws_session_token.get_secret_value() or None,
        config=AioConfig(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            max_pool_connections=CONNECTIONS,
        ),
    ) as client:
        yield S3Bucket(client, bucket, prefix.strip("/"))
