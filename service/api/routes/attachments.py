"""Routes of attachments."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api import responses
from service.api.authentication import CurrentUser
from service.api.conditional import IfNoneMatch
from service.api.openapi import DOWNLOAD, LOCATION, PAGE, UPLOAD_BODY, problems
from service.api.request_checks import RowId, each_once, no_query, whole_body
from service.api.state import State
from service.api.streaming.download import Download, RequestedRange
from service.api.streaming.multipart import WRONG_UPLOAD_TYPE, FileBody
from service.attachments.schemas import Attachment, AttachmentListParams, AttachmentPage

router = APIRouter(prefix="/tasks/{task_id}/attachments", tags=["attachments"])
FORBIDDEN = {403: "This task belongs to another user."}
NO_ATTACHMENT = {404: "The task has no such attachment."}


@router.post(
    "",
    summary="Attach a file",
    status_code=201,
    response_model=Attachment,
    dependencies=[no_query],
    openapi_extra=UPLOAD_BODY,
    responses=LOCATION
    | problems(
        401,
        403,
        404,
        413,
        details=FORBIDDEN | {413: "The file is too large: 26214400 bytes at most.", 415: WRONG_UPLOAD_TYPE},
    ),
)
async def add_attachment(state: State, viewer: CurrentUser, request: Request, task_id: RowId) -> Response:
    """Add a file to a task, as multipart/form-data with one field, `file`.

    The service derives the media type from the content, and removes a path from the file name. A file larger than
    ATTACHMENT_MAX_BYTES returns 413 `too_large`. One larger than the rest of the user's quota returns 413
    `quota_exceeded`.
    """
    attachment = await state.attachments.add(state.db, viewer, task_id, FileBody(request))
    location = f"/tasks/{task_id}/attachments/{attachment['id']}"
    return responses.json(attachment, status=201, headers={"Location": location})


@router.get(
    "",
    summary="List a task's attachments",
    response_model=AttachmentPage,
    dependencies=[each_once],
    responses=PAGE | problems(401, 403, 404, details=FORBIDDEN),
)
async def list_attachments(
    state: State, viewer: CurrentUser, request: Request, task_id: RowId, query: Annotated[AttachmentListParams, Query()]
) -> Response:
    """List a task's attachments, the oldest first."""
    page = await state.attachments.list(state.db, viewer, task_id, query, cursors=state.cursors)
    return responses.json(page, headers=responses.next_link(request, page["next_cursor"]))


@router.get(
    "/{attachment_id}",
    summary="Download an attachment",
    response_class=Response,
    dependencies=[no_query],
    responses=DOWNLOAD | problems(401, 403, 404, 416, details=FORBIDDEN | NO_ATTACHMENT),
)
async def download_attachment(
    state: State,
    viewer: CurrentUser,
    *,
    task_id: RowId,
    attachment_id: RowId,
    cached: IfNoneMatch,
    range_: RequestedRange,
) -> Response:
    """Download an attachment, or one range of it (`Range: bytes=…`).

    The entity tag is the SHA-256 of the whole file. If a download fails, the connection closes before the last byte; a
    request with `Range` and `If-Range` continues it.
    """
    attachment = await state.attachments.get(state.db, viewer, task_id, attachment_id)
    if cached is None or attachment["sha256"] in cached:
        return Response(status_code=304, headers=responses.cache_headers(attachment["sha256"]))
    part = range_.resolve(size=attachment["size"], tag=responses.entity_tag(attachment["sha256"]))
    start, stop = part or (0, attachment["size"])
    return Download(state.attachments.reading(state.db, viewer, attachment, start=start, stop=stop), attachment, part)


@router.delete(
    "/{attachment_id}",
    summary="Delete an attachment",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 413, details=FORBIDDEN | NO_ATTACHMENT),
)
async def delete_attachment(state: State, viewer: CurrentUser, task_id: RowId, attachment_id: RowId) -> Response:
    """Delete an attachment."""
    await state.attachments.delete(state.db, viewer, task_id, attachment_id)
    return Response(status_code=204)
