"""Routes of tasks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.exceptions import HTTPException

from service.api import responses
from service.api.authentication import Known
from service.api.conditional import KnownTags, Versions
from service.api.idempotency import Once
from service.api.openapi import MERGE_PATCH, PAGE, REPLAYED, TASK_HEADERS, problems
from service.api.request_checks import RowId, each_once, json_body, no_query, whole_body
from service.api.state import In
from service.api.streaming import export
from service.api.streaming.export import Export
from service.db.pool import Executor
from service.tasks import bulk, history, listing, operations
from service.tasks.bulk import NewTasks, TaskList
from service.tasks.history import HistoryPage, HistoryQuery
from service.tasks.schemas import ExportQuery, NewTask, Task, TaskPage, TaskPatch, TaskQuery

BULK_PATIENCE_SECONDS = 15.0
# A search may cost much more than a list: who makes many at once waits, and others find a connection.
SEARCH_PATIENCE_SECONDS = 3.0
router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.post(
    "",
    status_code=201,
    response_model=Task,
    dependencies=[no_query, json_body],
    responses=TASK_HEADERS[201] | problems(401, 403, 409, 413),
)
async def create_task(rooms: In, viewer: Known, new: NewTask, repeatable: Once) -> Response:
    """Make a task of one's own."""

    async def create(db: Executor) -> Response:
        row = await operations.create(db, viewer, new, weather=rooms.weather)
        return responses.task(row, status=201, headers={"Location": f"/tasks/{row['id']}"})

    return await repeatable.once(new, create, on=rooms.db)


@router.post(
    "/bulk",
    status_code=201,
    response_model=TaskList,
    dependencies=[no_query, json_body],
    responses=REPLAYED | problems(401, 403, 409, 413),
)
async def create_tasks(rooms: In, viewer: Known, new: NewTasks, repeatable: Once) -> Response:
    """Make up to 1,000 tasks of one's own, all of them or none; what is refused is named by its index."""

    async def create(db: Executor) -> Response:
        async with rooms.bulks.turn_within(BULK_PATIENCE_SECONDS, viewer.id):
            return responses.json({"items": await bulk.create(db, viewer, new, weather=rooms.weather)}, status=201)

    return await repeatable.once(new, create, on=rooms.bulk, patience=BULK_PATIENCE_SECONDS)


@router.api_route("/bulk", methods=["GET", "PUT", "PATCH", "DELETE"], include_in_schema=False)
@router.api_route("/export", methods=["POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def refuse_method() -> None:
    """Keep other methods from taking the word for an id."""
    raise HTTPException(405)


@router.get("", response_model=TaskPage, dependencies=[each_once], responses=PAGE | problems(401, 403))
async def list_tasks(rooms: In, viewer: Known, request: Request, query: Annotated[TaskQuery, Query()]) -> Response:
    """List one's own tasks; an administrator's list is of all."""
    async with nullcontext() if query.q is None else rooms.searches.turn_within(SEARCH_PATIENCE_SECONDS, viewer.id):
        page = await listing.page(rooms.db, viewer, query, cursors=rooms.cursors)
    return responses.json(page, headers=responses.next_link(request, page["next_cursor"]))


@router.get(
    "/export",
    response_class=Response,
    dependencies=[each_once],
    responses=export.DOCUMENTED | problems(401, 403),
)
async def export_tasks(rooms: In, viewer: Known, query: Annotated[ExportQuery, Query()]) -> Response:
    """Give all tasks of a list as one file, as they are at one moment, in the order of their ids.

    In CSV a cell that a spreadsheet would run (`=`, `+`, `-`, `@`, of full width too, tab or line end first) begins
    with an apostrophe. A file that could not be finished ends with a broken connection.
    """
    rows = listing.export(rooms.reports, viewer, query)
    return Export(rows, form=query.format, turn=rooms.exports.turn_within(export.PATIENCE_SECONDS, viewer.id))


@router.get(
    "/{task_id}",
    response_model=Task,
    dependencies=[no_query],
    responses=TASK_HEADERS[200] | TASK_HEADERS[304] | problems(401, 403, 404),
)
async def get_task(rooms: In, viewer: Known, task_id: RowId, known: KnownTags) -> Response:
    """Give one task."""
    task = await operations.get(rooms.db, viewer, task_id)
    if known is None or str(task["version"]) in known:
        return Response(status_code=304, headers=responses.cached(task["version"]))
    return responses.task(task)


@router.put(
    "/{task_id}",
    response_model=Task,
    dependencies=[no_query, json_body],
    responses=TASK_HEADERS[200] | problems(401, 403, 404, 412, 413),
)
async def replace_task(rooms: In, viewer: Known, task_id: RowId, new: NewTask, versions: Versions) -> Response:
    """Replace title, description, status and city: what is absent is cleared, or back at its default."""
    return responses.task(
        await operations.replace(rooms.db, viewer, task_id, new, versions=versions, weather=rooms.weather)
    )


@router.patch(
    "/{task_id}",
    response_model=Task,
    dependencies=[no_query, json_body],
    openapi_extra=MERGE_PATCH,
    responses=TASK_HEADERS[200] | problems(401, 403, 404, 412, 413),
)
async def change_task(rooms: In, viewer: Known, task_id: RowId, changes: TaskPatch, versions: Versions) -> Response:
    """Change what is sent (RFC 7396): absent is unchanged, null is cleared."""
    return responses.task(
        await operations.patch(rooms.db, viewer, task_id, changes, versions=versions, weather=rooms.weather)
    )


@router.delete(
    "/{task_id}",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 412, 413),
)
async def delete_task(rooms: In, viewer: Known, task_id: RowId, versions: Versions) -> Response:
    """Delete a task, with its attachments."""
    await operations.delete(rooms.db, viewer, task_id, versions=versions)
    rooms.attachments.removed.set()
    return Response(status_code=204)


@router.get(
    "/{task_id}/history", response_model=HistoryPage, dependencies=[each_once], responses=PAGE | problems(401, 403, 404)
)
async def get_history(
    rooms: In, viewer: Known, request: Request, task_id: RowId, query: Annotated[HistoryQuery, Query()]
) -> Response:
    """List what has happened to a task, the newest first: who changed what; of a deleted task too."""
    page = await history.page(rooms.db, viewer, task_id, query, cursors=rooms.cursors)
    return responses.json(page, headers=responses.next_link(request, page["next_cursor"]))


@router.post(
    "/{task_id}/restore",
    response_model=Task,
    dependencies=[no_query, whole_body],
    responses=TASK_HEADERS[200] | problems(401, 403, 404, 409, 413),
)
async def restore_task(rooms: In, viewer: Known, task_id: RowId) -> Response:
    """Bring a task back within 30 days of its deletion, as it was then; its version goes on.

    Of its attachments those come back whose files are still there: few, as they are removed soon."""
    return responses.task(await history.restore(rooms.db, viewer, task_id, attachments=rooms.attachments))
