"""Routes of tasks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api import responses
from service.api.authentication import CurrentUser
from service.api.conditional import IfMatch, IfNoneMatch
from service.api.idempotency import FIRST_REQUEST_RUNS, Idempotent
from service.api.openapi import PAGE, REPLAYED, TASK_HEADERS, merge_patch, problems
from service.api.request_checks import RowId, each_once, json_body, no_query, whole_body
from service.api.state import State
from service.api.streaming import export
from service.api.streaming.export import Export
from service.db.pool import Executor
from service.tasks import bulk, history, listing, operations
from service.tasks.bulk import NewTasks, TaskList
from service.tasks.history import HistoryPage, HistoryParams
from service.tasks.schemas import ExportParams, NewTask, Task, TaskListParams, TaskPage, TaskPatch

BULK_SLOT_TIMEOUT_SECONDS = 15.0
# A search can cost much more than a list, so searches have slots and leave connections to other requests.
SEARCH_SLOT_TIMEOUT_SECONDS = 3.0
FORBIDDEN = {403: "This task belongs to another user."}
router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.post(
    "",
    summary="Create a task",
    status_code=201,
    response_model=Task,
    dependencies=[no_query, json_body],
    responses=TASK_HEADERS[201] | problems(401, 403, 409, 413, details={409: FIRST_REQUEST_RUNS}),
)
async def create_task(state: State, viewer: CurrentUser, new: NewTask, idempotent: Idempotent) -> Response:
    """Create a task of your own.

    With `Idempotency-Key` the request is safe to repeat.
    """

    async def create(db: Executor) -> Response:
        row = await operations.create(db, viewer, new, weather=state.weather)
        return responses.task(row, status=201, headers={"Location": f"/tasks/{row['id']}"})

    return await idempotent.run(new, create, on=state.db)


@router.post(
    "/bulk",
    summary="Create many tasks",
    status_code=201,
    response_model=TaskList,
    dependencies=[no_query, json_body],
    responses=REPLAYED | problems(401, 403, 409, 413, details={409: FIRST_REQUEST_RUNS}),
)
async def create_tasks(state: State, viewer: CurrentUser, new: NewTasks, idempotent: Idempotent) -> Response:
    """Create up to 1,000 tasks, all of them or none.

    A 422 response names each invalid task by its index, as in `/tasks/3/title`.
    """

    async def create(db: Executor) -> Response:
        async with state.bulks.slot_within(BULK_SLOT_TIMEOUT_SECONDS, viewer.id):
            return responses.json({"items": await bulk.create(db, viewer, new, weather=state.weather)}, status=201)

    return await idempotent.run(new, create, on=state.bulk, wait_seconds=BULK_SLOT_TIMEOUT_SECONDS)


@router.get(
    "",
    summary="List tasks",
    response_model=TaskPage,
    dependencies=[each_once],
    responses=PAGE | problems(401, 403, details={403: "Only an administrator sees another's tasks."}),
)
async def list_tasks(
    state: State, viewer: CurrentUser, request: Request, query: Annotated[TaskListParams, Query()]
) -> Response:
    """List the tasks that match the filters.

    A user sees their own tasks, and an administrator all tasks.
    """
    is_search = query.q is not None
    slot = state.searches.slot_within(SEARCH_SLOT_TIMEOUT_SECONDS, viewer.id) if is_search else nullcontext()
    async with slot:
        page = await listing.page(state.db, viewer, query, cursors=state.cursors)
    return responses.json(page, headers=responses.next_link(request, page["next_cursor"]))


@router.get(
    "/export",
    summary="Export tasks",
    response_class=Response,
    dependencies=[each_once],
    responses=export.RESPONSES | problems(401, 403, details={403: "Only an administrator sees another's tasks."}),
)
async def export_tasks(state: State, viewer: CurrentUser, query: Annotated[ExportParams, Query()]) -> Response:
    """Return all tasks that match the filters as one file, in the order of their ids, as of one moment.

    In CSV, an apostrophe precedes what a spreadsheet would run as a formula: `=`, `+`, `-` or `@`, a full-width form of
    these, a tab or a line break, at the beginning of a cell or after a semicolon, which separates cells in some
    countries. If an export fails, the connection closes before the end of the file.
    """
    rows = listing.export(state.reports, viewer, query)
    slot = state.exports.slot_within(export.SLOT_TIMEOUT_SECONDS, viewer.id)
    return Export(rows, format_=query.format, has_bom=query.bom, slot=slot)


@router.get(
    "/{task_id}",
    summary="Read a task",
    response_model=Task,
    dependencies=[no_query],
    responses=TASK_HEADERS[200] | TASK_HEADERS[304] | problems(401, 403, 404, details=FORBIDDEN),
)
async def get_task(state: State, viewer: CurrentUser, task_id: RowId, cached: IfNoneMatch) -> Response:
    """Return one task."""
    task = await operations.get(state.db, viewer, task_id)
    if cached is None or str(task["version"]) in cached:
        return Response(status_code=304, headers=responses.cache_headers(task["version"]))
    return responses.task(task)


@router.put(
    "/{task_id}",
    summary="Replace a task",
    response_model=Task,
    dependencies=[no_query, json_body],
    responses=TASK_HEADERS[200] | problems(401, 403, 404, 412, 413, details=FORBIDDEN),
)
async def replace_task(state: State, viewer: CurrentUser, task_id: RowId, new: NewTask, versions: IfMatch) -> Response:
    """Replace a task's title, description, status and city.

    An absent `description` or `city` becomes null, and an absent `status` becomes `todo`.
    """
    return responses.task(
        await operations.replace(state.db, viewer, task_id, new, versions=versions, weather=state.weather)
    )


@router.patch(
    "/{task_id}",
    summary="Change a task",
    response_model=Task,
    dependencies=[no_query, json_body],
    openapi_extra=merge_patch("TaskPatch"),
    responses=TASK_HEADERS[200] | problems(401, 403, 404, 412, 413, details=FORBIDDEN),
)
async def change_task(
    state: State, viewer: CurrentUser, task_id: RowId, changes: TaskPatch, versions: IfMatch
) -> Response:
    """Change the members that the body contains, as a merge patch (RFC 7396).

    An absent member stays unchanged. Null clears a member.
    """
    return responses.task(
        await operations.patch(state.db, viewer, task_id, changes, versions=versions, weather=state.weather)
    )


@router.delete(
    "/{task_id}",
    summary="Delete a task",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 412, 413, details=FORBIDDEN),
)
async def delete_task(state: State, viewer: CurrentUser, task_id: RowId, versions: IfMatch) -> Response:
    """Delete a task and its attachments."""
    await operations.delete(state.db, viewer, task_id, versions=versions)
    state.attachments.removed.set()
    return Response(status_code=204)


@router.get(
    "/{task_id}/history",
    summary="List a task's changes",
    response_model=HistoryPage,
    dependencies=[each_once],
    responses=PAGE | problems(401, 403, 404, details=FORBIDDEN),
)
async def list_task_history(
    state: State, viewer: CurrentUser, request: Request, task_id: RowId, query: Annotated[HistoryParams, Query()]
) -> Response:
    """List the changes of a task, the newest first: who changed which fields, and when.

    The history of a deleted task is available too.
    """
    page = await history.page(state.db, viewer, task_id, query, cursors=state.cursors)
    return responses.json(page, headers=responses.next_link(request, page["next_cursor"]))


@router.post(
    "/{task_id}/restore",
    summary="Restore a deleted task",
    response_model=Task,
    dependencies=[no_query, whole_body],
    responses=TASK_HEADERS[200]
    | problems(401, 403, 404, 409, 413, details=FORBIDDEN | {409: "This task is not deleted."}),
)
async def restore_task(state: State, viewer: CurrentUser, task_id: RowId) -> Response:
    """Restore a deleted task within 30 days of its deletion, with its id and its content.

    Its version continues to increase. An attachment is restored only if its file still exists; files are usually
    removed soon after the deletion.
    """
    return responses.task(await history.restore(state.db, viewer, task_id, attachments=state.attachments))
