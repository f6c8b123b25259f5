"""Tasks: what comes in, what goes out, and what can be done with them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from loguru import logger
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.core.errors import ForbiddenError, InvalidError, StaleError
from service.core.pagination import Cursors
from service.core.validation import AS_DIGITS, VISIBLE, Id, Input, Period, Text, not_blank
from service.core.viewer import Viewer
from service.db.pool import Database, Executor
from service.db.queries import q
from service.db.verdicts import permitted
from service.lists import Sort, rows
from service.weather.client import Weather

Status = Literal["todo", "in_progress", "done"]
Count = Literal["none", "exact", "estimated"]

Title = Annotated[
    Text, Field(min_length=1, max_length=100, examples=["Prepare Report"]), AfterValidator(not_blank), VISIBLE
]
Description = Annotated[Text | None, Field(max_length=10_000, examples=["Collect monthly data"])]
City = Annotated[Text | None, Field(max_length=100, examples=["Moscow"], description="Where the weather is looked up.")]


class NewTask(Input):
    """A task to be created; as the body of PUT it replaces all of these fields, and what is absent is cleared."""

    title: Title
    description: Description = None
    status: Status = "todo"
    city: City = None


class TaskPatch(Input):
    """A merge patch (RFC 7396): absent is unchanged, null is cleared."""

    title: Title = Field(default_factory=str)
    description: Description = Field(default_factory=lambda: None)
    status: Status = Field(default_factory=lambda: "todo")
    city: City = Field(default_factory=lambda: None)


class TaskWeather(BaseModel):
    """The weather in the task's city, set by the service alone."""

    model_config = ConfigDict(extra="allow")

    temperature: Annotated[float, Field(description="°C", examples=[15.5])]
    condition: Annotated[str, Field(examples=["Clouds"])]
    humidity: Annotated[float | None, Field(description="%", examples=[81])] = None
    wind_speed: Annotated[float | None, Field(description="m/s", examples=[4.1])] = None
    observed_at: datetime | None = None


class Task(NewTask):
    """A task."""

    model_config = ConfigDict(extra="ignore")

    id: int
    weather: TaskWeather | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: Annotated[int, Field(description="Moved on by every change; the entity tag.")]


class TaskPage(BaseModel):
    """A page of tasks."""

    items: list[Task]
    next_cursor: Annotated[str | None, Field(description="Gives the next page; null on the last one.")]
    total: Annotated[int | None, Field(description="How many there are on all pages; null unless `count` asks for it.")]


class TaskFilters(Period):
    """Which tasks."""

    status: Annotated[list[Status] | None, Field(description="Repeatable.")] = None
    user_id: Annotated[Id | None, Field(description="Another's, asked by a user: 403.")] = None
    city: Annotated[Text | None, Field(max_length=100, description="As it is written in the task.")] = None
    q: Annotated[
        Text | None,
        Field(
            max_length=10_000,
            description=(
                'Words of title and description: all of them, `"a phrase"`, `or`, `-not`; English by stems. '
                "The first 32 words count."
            ),
            examples=["monthly reports"],
        ),
    ] = None


class TaskQuery(TaskFilters):
    """Filters, order and page of a list of tasks."""

    sort: Annotated[Sort, Field(description="`-` first: descending.")] = "-created_at"
    limit: Annotated[int, Field(ge=1, le=100, description="Of a page."), AS_DIGITS] = 20
    cursor: Annotated[str | None, Field(max_length=2000, description="`next_cursor` of the page before.")] = None
    offset: Annotated[
        int | None, Field(ge=0, le=10_000, description="Rows to skip; not together with `cursor`."), AS_DIGITS
    ] = None
    count: Annotated[Count, Field(description="Whether `total` is counted, estimated by the planner, or left out.")] = (
        "none"
    )


class ExportQuery(TaskFilters):
    """Filters and form of an export."""

    format: Annotated[Literal["ndjson", "csv"], Field(description="A JSON object, or a row, in each line.")] = "ndjson"


async def create(db: Executor, viewer: Viewer, new: NewTask, *, weather: Weather) -> Any:
    """Make a task of the viewer's own and give its row, with the weather where it is found in time."""
    found = await weather.now(new.city)
    row = await q.tasks.create(db, user_id=viewer.id, **new.model_dump(), weather=found)
    _log(viewer, row["id"], "task created")
    return row


async def get(db: Executor, viewer: Viewer, task_id: int) -> dict[str, Any]:
    """Give a task; NotFoundError, ForbiddenError."""
    row = await q.tasks.get(db, task_id=task_id, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin)
    return _current(row)


async def replace(
    db: Executor, viewer: Viewer, task_id: int, new: NewTask, *, versions: list[int] | None, weather: Weather
) -> dict[str, Any]:
    """Replace all that a client may set; versions: those expected (`If-Match`), None for any.

    Raises NotFoundError, ForbiddenError, StaleError.
    """
    return await _update(db, viewer, task_id, new.model_dump(), versions=versions, weather=weather)


async def patch(
    db: Executor, viewer: Viewer, task_id: int, changes: TaskPatch, *, versions: list[int] | None, weather: Weather
) -> dict[str, Any]:
    """Change what was sent and nothing else; versions and errors as in `replace`."""
    return await _update(
        db, viewer, task_id, changes.model_dump(exclude_unset=True), versions=versions, weather=weather
    )


async def delete(db: Executor, viewer: Viewer, task_id: int, *, versions: list[int] | None) -> None:
    """Delete a task; versions and errors as in `replace`."""
    row = await q.tasks.delete(
        db, task_id=task_id, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin, expected_versions=versions
    )
    _current(row)
    _log(viewer, task_id, "task deleted")


async def page(db: Database, viewer: Viewer, query: TaskQuery, *, cursors: Cursors) -> dict[str, Any]:
    """Give a page `{items, next_cursor, total}`; ForbiddenError for another's, InvalidError for a foreign cursor."""
    filters = _filters(viewer, query)
    if query.cursor is not None and query.offset is not None:
        raise InvalidError("takes no cursor beside it", pointer="/query/offset")
    bound_to = [query.sort, filters]
    after = cursors.read(query.cursor, bound_to=bound_to) if query.cursor is not None else (None, None)
    found = await rows(
        db,
        sort=query.sort,
        **filters,
        after_value=after[0],
        after_id=after[1],
        row_limit=query.limit + 1,
        row_offset=query.offset or 0,
    )
    items, more = found[: query.limit], len(found) > query.limit
    last = items[-1] if more else None
    column = query.sort.removeprefix("-")
    return {
        "items": items,
        "next_cursor": last and cursors.make(value=last[column], key=last["id"], bound_to=bound_to),
        "total": await _total(db, query, filters, shown=(query.offset or 0) + len(found) if found else 0),
    }


def export(db: Database, viewer: Viewer, query: ExportQuery) -> AsyncGenerator[Sequence[Mapping[str, Any]]]:
    """Give all tasks that the filters leave, as they are at one moment, some at a time; ForbiddenError."""
    return q.tasks.export.stream(db, **_filters(viewer, query))


def _filters(viewer: Viewer, query: TaskFilters) -> dict[str, Any]:
    if query.user_id not in (None, viewer.id) and not viewer.is_admin:
        raise ForbiddenError("Only an administrator sees another's tasks.")
    return {
        "viewer_id": viewer.id,
        "viewer_is_admin": viewer.is_admin,
        "user_id": query.user_id,
        "status": sorted(set(query.status)) if query.status else None,
        "city": query.city,
        "created_from": query.start_date,
        "created_before": query.end_date,
        "sought": query.q,
    }


async def _total(db: Executor, query: TaskQuery, filters: dict[str, Any], *, shown: int) -> int | None:
    """Give what `count` asks for; an estimate is no less than what the page has shown."""
    if query.count == "exact":
        return int(await q.tasks.count(db, **filters))
    if query.count == "estimated":
        return max(shown, await q.tasks.export.estimate(db, **filters))
    return None


async def _update(
    db: Executor,
    viewer: Viewer,
    task_id: int,
    changes: dict[str, Any],
    *,
    versions: list[int] | None,
    weather: Weather,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in NewTask.model_fields:
        values |= {f"set_{name}": name in changes, name: changes.get(name)}
    row = await q.tasks.update(
        db,
        task_id=task_id,
        viewer_id=viewer.id,
        viewer_is_admin=viewer.is_admin,
        expected_versions=versions,
        weather=await weather.now(await _new_city(db, viewer, task_id, changes.get("city"))),
        **values,
    )
    task = _current(row)
    _log(viewer, task_id, "task updated", version=task["version"], sent=",".join(changes))
    return task


async def _new_city(db: Executor, viewer: Viewer, task_id: int, city: str | None) -> str | None:
    """Give the city where the viewer may change the task and it is not there yet: nobody waits for other weather."""
    if city is None:
        return None
    task = await get(db, viewer, task_id)
    return city if city != task["city"] else None


def _current(row: Any) -> dict[str, Any]:
    task = permitted(row)
    if task.pop("verdict") == "stale":
        version = task["version"]
        detail = f'The task has the ETag "{version}", quotes included, which the request does not expect.'
        raise StaleError(detail, version=version)
    return task


def _log(viewer: Viewer, task_id: int, what: str, **fields: Any) -> None:
    logger.bind(task_id=task_id, actor_id=viewer.id, **fields).info(what)
