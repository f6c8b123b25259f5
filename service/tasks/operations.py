"""The operations on one task."""

from __future__ import annotations

from typing import Any

from loguru import logger

from service.core.errors import PreconditionFailedError
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q
from service.db.verdicts import permitted
from service.tasks.schemas import NewTask, TaskPatch
from service.weather.client import WeatherClient


async def create(db: Executor, viewer: Viewer, new: NewTask, *, weather: WeatherClient) -> Any:
    """Create a task that the viewer owns and return its row, with the weather if it is found in time."""
    row = await q.tasks.create(db, user_id=viewer.id, **new.model_dump(), weather=await weather.find(new.city))
    _log(viewer, row["id"], "task created")
    return row


async def get(db: Executor, viewer: Viewer, task_id: int) -> dict[str, Any]:
    """Return a task. Raises: NotFoundError, ForbiddenError."""
    row = await q.tasks.get(db, task_id=task_id, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin)
    return _current(row)


async def replace(
    db: Executor, viewer: Viewer, task_id: int, new: NewTask, *, versions: list[int] | None, weather: WeatherClient
) -> dict[str, Any]:
    """Replace all fields that a client may set, and return the task.

    versions: the versions that the client expects (`If-Match`), None for any.

    Raises: NotFoundError, ForbiddenError, PreconditionFailedError.
    """
    return await _update(db, viewer, task_id, new.model_dump(), versions=versions, weather=weather)


async def patch(
    db: Executor,
    viewer: Viewer,
    task_id: int,
    changes: TaskPatch,
    *,
    versions: list[int] | None,
    weather: WeatherClient,
) -> dict[str, Any]:
    """Change the fields that the client sent, and return the task; versions and errors as in `replace`."""
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


async def _update(
    db: Executor,
    viewer: Viewer,
    task_id: int,
    changes: dict[str, Any],
    *,
    versions: list[int] | None,
    weather: WeatherClient,
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
        weather=await weather.find(await _new_city(db, viewer, task_id, changes.get("city"))),
        **values,
    )
    task = _current(row)
    _log(viewer, task_id, "task updated", version=task["version"], sent=",".join(changes))
    return task


async def _new_city(db: Executor, viewer: Viewer, task_id: int, city: str | None) -> str | None:
    """Return the city if it is new to the task and the viewer may change the task: only then weather is needed."""
    if city is None:
        return None
    task = await get(db, viewer, task_id)
    return city if city != task["city"] else None


def _current(row: Any) -> dict[str, Any]:
    task = permitted(row)
    if task.pop("verdict") == "stale":
        version = task["version"]
        detail = f'The task has the ETag "{version}", quotes included, which the request does not expect.'
        raise PreconditionFailedError(detail, version=version)
    return task


def _log(viewer: Viewer, task_id: int, message: str, **fields: Any) -> None:
    logger.bind(task_id=task_id, actor_id=viewer.id, **fields).info(message)
