"""Routes of tasks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.exceptions import HTTPException

from service.api import responses
from service.api.authentication import CurrentUser
from service.api.conditional import IfMatch, IfNoneMatch
from service.api.idempotency import Idempotent
from service.api.openapi import MERGE_PATCH, PAGE, REPLAYED, TASK_HEADERS, problems
from service.api.request_checks import RowId, each_once, json_body, no_query, whole_body
from service.api.state import State
from service.api.streaming import export
from service.api.streaming.export import Export
from service.db.pool import Executor
from service.tasks import bulk, history, listing, operations
from service.tasks.bulk import NewTasks, TaskList
from service.tasks.history import HistoryPage, HistoryParams
from service.tasks.schemas import ExportParams, NewTask, Task, TaskListParams, TaskPage, TaskPatch

BULK_WAIT_SECONDS = 15.0
# A search may cost much more than a list: who makes many at once waits, and others find a connection.
SEARCH_WAIT_SECONDS = 3.0
router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.post(
    "",
    status_code=201,
    response_model=Task,
    dependencies=[no_query, json_body],
    responses=TASK_HEADERS[201] | problems(401, 403, 409, 413),
)
async def create_task(state: State, viewer: CurrentUser, new: NewTask, idempotent: Idempotent) -> Response:
    """Make a task of one's own."""

    async def create(db: Executor) -> Response:
        row = await operations.create(db, viewer, new, weather=state.weather)
        return responses.task(row, status=201, headers={"Location": f"/tasks/{row['id']}"})

    return await idempotent.run(new, create, on=state.db)


@router.post(
    "/bulk",
    status_code=201,
    response_model=TaskList,
    dependencies=[no_query, json_body],
    responses=REPLAYED | problems(401, 403, 409, 413),
)
async def create_tasks(state: State, viewer: CurrentUser, new: NewTasks, idempotent: Idempotent) -> Response:
    """Make up to 1,000 tasks of one's own, all of them or none; what is refused is named by its index."""

    async def create(db: Executor) -> Response:
        async with state.bulks.slot_within(BULK_WAIT_SECONDS, viewer.id):
            return responses.json({"items": await bulk.create(db, viewer, new, weather=state.weather)}, status=201)

    return await idempotent.run(new, create, on=state.bulk, wait_seconds=BULK_WAIT_SECONDS)


@router.api_route("/bulk", methods=["GET", "PUT", "PATCH", "DELETE"], include_in_schema=False)
@router.api_route("/export", methods=["POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def refuse_method() -> None:
    """Keep other methods from taking the word for an id."""
    raise HTTPException(405)


@router.get("", response_model=TaskPage, dependencies=[each_once], responses=PAGE | problems(401, 403))
async def list_tasks(
    state: State, viewer: CurrentUser, request: Request, query: Annotated[TaskListParams, Query()]
) -> Response:
    """List one's own tasks; an administrator's list is of all."""
    async with nullcontext() if query.q is None else state.searches.slot_within(SEARCH_WAIT_SECONDS, viewer.id):
        page = await listing.page(state.db, viewer, query, cursors=state.cursors)
    return responses.json(page, headers=responses.next_link(request, page["next_cursor"]))


@router.get(
    "/export",
    response_class=Response,
    dependencies=[each_once],
    responses=export.DOCUMENTED | problems(401, 403),
)
async def export_tasks(state: State, viewer: CurrentUser, query: Annotated[ExportParams, Query()]) -> Response:
    """Give all tasks of a list as one file, as they are at one moment, in the order of their ids.

    In CSV a cell that a spreadsheet would run (`=`, `+`, `-`, `@`, of full width too, tab or line end first) begins
    with an apostrophe. A file that could not be finished ends with a broken connection.
    """
    rows = listing.export(state.reports, viewer, query)
    return Export(rows, form=query.format, slot=state.exports.slot_within(export.WAIT_SECONDS, viewer.id))


@router.get(
    "/{task_id}",
    response_model=Task,
    dependencies=[no_query],
    responses=TASK_HEADERS[200] | TASK_HEADERS[304] | problems(401, 403, 404),
)
async def get_task(state: State, viewer: CurrentUser, task_id: RowId, known: IfNoneMatch) -> Response:
    """Give one task."""
    task = await operations.get(state.db, viewer, task_id)
    if known is None or str(task["version"]) in known:
        return Response(status_code=304, headers=responses.cache_headers(task["version"]))
    return responses.task(task)


@router.put(
    "/{task_id}",
    response_model=Task,
    dependencies=[no_query, json_body],
    responses=TASK_HEADERS[200] | problems(401, 403, 404, 412, 413),
)
async def replace_task(state: State, viewer: CurrentUser, task_id: RowId, new: NewTask, versions: IfMatch) -> Response:
    """Replace title, description, status and city: what is absent is cleared, or back at its default."""
    return responses.task(
        await operations.replace(state.db, viewer, task_id, new, versions=versions, weather=state.weather)
    )


@router.patch(
    "/{task_id}",
    response_model=Task,
    dependencies=[no_query, json_body],
    openapi_extra=MERGE_PATCH,
    responses=TASK_HEADERS[200] | problems(401, 403, 404, 412, 413),
)
async def change_task(
    state: State, viewer: CurrentUser, task_id: RowId, changes: TaskPatch, versions: IfMatch
) -> Response:
    """Change what is sent (RFC 7396): absent is unchanged, null is cleared."""
    return responses.task(
        await operations.patch(state.db, viewer, task_id, changes, versions=versions, weather=state.weather)
    )


@router.delete(
    "/{task_id}",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 412, 413),
)
async def delete_task(state: State, viewer: CurrentUser, task_id: RowId, versions: IfMatch) -> Response:
    """Delete a task, with its attachments."""
    await operations.delete(state.db, viewer, task_id, versions=versions)
    state.attachments.removed.set()
    return Response(status_code=204)


@router.get(
    "/{task_id}/history", response_model=HistoryPage, dependencies=[each_once], responses=PAGE | problems(401, 403, 404)
)
async def get_history(
    state: State, viewer: CurrentUser, request: Request, task_id: RowId, query: Annotated[HistoryParams, Query()]
) -> Response:
    """List what has happened to a task, the newest first: who changed what; of a deleted task too."""
    page = await history.page(state.db, viewer, task_id, query, cursors=state.cursors)
    return responses.json(page, headers=responses.next_link(request, page["next_cursor"]))


@router.post(
    "/{task_id}/restore",
    response_model=Task,
    dependencies=[no_query, whole_body],
    responses=TASK_HEADERS[200] | problems(401, 403, 404, 409, 413),
)
async def restore_task(state: State, viewer: CurrentUser, task_id: RowId) -> Response:
    """Bring a task back within 30 days of its deletion, as it was then; its version goes on.

    Of its attachments those come back whose files are still there: few, as they are removed soon."""
    return responses.task(await history.restore(state.db, viewer, task_id, attachments=state.attachments))
