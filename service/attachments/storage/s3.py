"""Files in a bucket of S3 or of a store with its protocol, small ones sent whole and others in parts."""

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

from service.attachments.storage.base import CHUNK_BYTES, StoredFile, not_found, unavailable
from service.core.errors import UnavailableError
from service.core.settings import Settings

PART_BYTES = 5 * 1024 * 1024  # the protocol's minimum
CONNECTIONS = 128
CONNECT_SECONDS, READ_SECONDS, CALL_SECONDS, TRIES = 3, 10, 60, 2
ABSENT = {"404", "NoSuchKey", "NoSuchUpload"}
NAME = re.compile(r"[0-9a-f]{32}/[0-9a-f]{32}")


class S3Bucket:
    """A store in an S3 bucket, under a prefix."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def address(self, key: str) -> dict[str, str]:
        """Return the arguments that name a file in the protocol."""
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    async def begin(self, key: str) -> _PartsWriter:
        """Begin to write a file; the first request is sent with its first part."""
        return _PartsWriter(self, key)

    async def read(self, key: str, *, size: int, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Return bytes of a file."""
        byte_range = {} if (start, stop) == (0, size) else {"Range": f"bytes={start}-{stop - 1}"}
        try:
            async with translated_errors():
                response = await self.client.get_object(**self.address(key), **byte_range)
        except _AbsentError:
            raise not_found(key) from LookupError(key)
        async with response["Body"] as body:
            total = response.get("ContentRange", f"/{response['ContentLength']}").rpartition("/")[2]
            if (total, response["ContentLength"]) != (str(size), stop - start):
                raise not_found(key)
            while start < stop:
                async with translated_errors():
                    data = await body.read(CHUNK_BYTES)
                    if not data:
                        raise ConnectionError("the file ended early")
                start += len(data)
                yield data

    async def exists(self, key: str) -> bool:
        """Return whether the file exists."""
        try:
            async with translated_errors():
                await self.client.head_object(**self.address(key))
        except _AbsentError:
            return False
        return True

    async def remove(self, key: str) -> None:
        """Remove a file if it exists."""
        with suppress(_AbsentError):
            async with translated_errors():
                await self.client.delete_object(**self.address(key))

    async def list_files(self, folder: str) -> AsyncIterator[list[StoredFile]]:
        """Return a folder's files, one page of the protocol per batch."""
        async for page in self._pages("list_objects_v2", folder):
            entries = [(one["Key"].removeprefix(self._prefix), one["LastModified"]) for one in page.get("Contents", ())]
            if files := [StoredFile(key, modified_at) for key, modified_at in entries if NAME.fullmatch(key)]:
                yield files

    async def remove_unfinished(self, folder: str, *, before: datetime) -> int:
        """Abort the uploads in parts that began before a moment: they use space that no list of files shows."""
        aborted = 0
        async for page in self._pages("list_multipart_uploads", folder):
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] < before:
                    with suppress(_AbsentError):
                        async with translated_errors():
                            await self.client.abort_multipart_upload(
                                Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                            )
                    aborted += 1
        return aborted

    async def _pages(self, operation: str, folder: str) -> AsyncIterator[Any]:
        pages = self.client.get_paginator(operation).paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/")
        iterator = aiter(pages)
        while True:
            async with translated_errors():
                page = await anext(iterator, None)
            if page is None:
                return
            yield page


class _PartsWriter:
    """A file of which each part is sent as soon as it is large enough."""

    def __init__(self, bucket: S3Bucket, key: str) -> None:
        self._client = bucket.client
        self._address = bucket.address(key)
        self._buffer = bytearray()
        self._upload: dict[str, str] = {}
        self._parts: list[dict[str, Any]] = []
        self._may_exist = False

    async def write(self, data: bytes) -> None:
        """Append bytes to the file, as soon as a part is full."""
        self._buffer += data
        if len(self._buffer) >= PART_BYTES:
            await self._send()

    async def finish(self) -> None:
        """Send the rest and combine the parts; a file of one part is sent whole."""
        if not self._upload:
            self._may_exist = True
            async with translated_errors():
                await self._client.put_object(**self._address, Body=self._body())
            return
        if self._buffer:
            await self._send()
        self._may_exist = True
        async with translated_errors():
            await self._client.complete_multipart_upload(
                **self._address, **self._upload, MultipartUpload={"Parts": self._parts}
            )

    async def abandon(self) -> None:
        """Abort the upload, and remove the file if an unanswered request may have finished it."""
        try:
            if self._upload:
                with suppress(_AbsentError):
                    async with translated_errors():
                        await self._client.abort_multipart_upload(**self._address, **self._upload)
            if self._may_exist:
                with suppress(_AbsentError):
                    async with translated_errors():
                        await self._client.delete_object(**self._address)
        except UnavailableError as error:  # the sweep removes it later
            logger.bind(cause=repr(error.__cause__)).warning("upload not aborted")

    def _body(self) -> io.BytesIO:
        body = io.BytesIO(self._buffer)
        self._buffer = bytearray()
        return body

    async def _send(self) -> None:
        async with translated_errors():
            if not self._upload:
                created = await self._client.create_multipart_upload(**self._address)
                self._upload = {"UploadId": created["UploadId"]}
            number = len(self._parts) + 1
            sent = await self._client.upload_part(**self._address, **self._upload, PartNumber=number, Body=self._body())
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})


class _AbsentError(Exception):
    """The store's answer that a file or an upload does not exist."""


@asynccontextmanager
async def translated_errors() -> AsyncIterator[None]:
    """Translate errors of calls to the store into the service's own, and end a call after CALL_SECONDS.

    The library has no timeout for a request body that the store does not read.
    """
    try:
        async with asyncio.timeout(CALL_SECONDS):
            yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ABSENT:
            raise _AbsentError from error
        raise unavailable(error) from error
    except (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise unavailable(error) from error


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[S3Bucket]:
    """Open the bucket of ATTACHMENTS_URL with one client for the lifetime of the process."""
    bucket, _, prefix = settings.attachments_url.removeprefix("s3://").partition("/")
    # The library finds what is not set here: in its own variables and files, or from the cloud's metadata service.
    async with get_session().create_client(
        "s3",
        endpoint_url=settings.s3_endpoint_url or None,
        region_name=settings.aws_region or None,
        aws_access_key_id=settings.aws_access_key_id or None,
        aws_secret_access_key=settings.aws_secret_access_key.get_secret_value() or None,
        aws_session_token=settings.aws_session_token.get_secret_value() or None,
        config=AioConfig(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            max_pool_connections=CONNECTIONS,
        ),
    ) as client:
        yield S3Bucket(client, bucket, prefix.strip("/"))
