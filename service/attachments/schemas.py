"""The parameters and responses of attachments."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from service.core.pagination import NextCursor, PageCursor, PageLimit
from service.core.validation import Input


class Attachment(BaseModel):
    """A file that is attached to a task."""

    id: int
    task_id: int
    filename: Annotated[str, Field(description="The client's filename, without a path.", examples=["report.pdf"])]
    content_type: Annotated[
        str, Field(description="The media type, detected from the content.", examples=["application/pdf"])
    ]
    size: Annotated[int, Field(description="The size in bytes.", examples=[48_213])]
    sha256: Annotated[
        str,
        Field(
            description="The SHA-256 of the content, in hexadecimal. It is the entity tag of a download.",
            examples=["2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"],
        ),
    ]
    created_at: datetime


class AttachmentPage(BaseModel):
    """A page of a task's attachments."""

    items: list[Attachment]
    next_cursor: NextCursor


class AttachmentListParams(Input):
    """The page of a task's attachments."""

    limit: PageLimit = 20
    cursor: PageCursor = None
