"""What clients send and get about attachments."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from service.core.validation import AS_DIGITS, Input


class Attachment(BaseModel):
    """A file of a task."""

    id: int
    task_id: int
    filename: Annotated[str, Field(description="The client's name for it, without a path.", examples=["report.pdf"])]
    content_type: Annotated[str, Field(description="What its content shows.", examples=["application/pdf"])]
    size: Annotated[int, Field(description="Bytes.", examples=[48_213])]
    sha256: Annotated[str, Field(description="Of its bytes; the entity tag of a download.")]
    created_at: datetime


class AttachmentPage(BaseModel):
    """A page of a task's attachments."""

    items: list[Attachment]
    next_cursor: Annotated[str | None, Field(description="Gives the next page; null on the last one.")]


class AttachmentQuery(Input):
    """Page of a task's attachments."""

    limit: Annotated[int, Field(ge=1, le=100, description="Of a page."), AS_DIGITS] = 20
    cursor: Annotated[str | None, Field(max_length=2000, description="`next_cursor` of the page before.")] = None
