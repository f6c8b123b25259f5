"""Many tasks created by one request: all of them or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Annotated, Any

from loguru import logger
from pydantic import BaseModel, BeforeValidator, Field

from service.core.validation import MAX_FIELDS, Input
from service.core.viewer import Viewer
from service.db.errors import discarded
from service.db.pool import Database, Executor
from service.db.queries import q
from service.tasks.schemas import NewTask, Task
from service.weather.client import WeatherClient

MAX_TASKS = 1000


def _check_size(tasks: object) -> object:
    """Refuse too many tasks or unknown fields as a whole: one error for each would take seconds."""
    if isinstance(tasks, list):
        if len(tasks) > MAX_TASKS:
            raise ValueError(f"Input should have at most {MAX_TASKS} tasks and has {len(tasks)}")
        names = (one.keys() for one in tasks if isinstance(one, dict))
        if sum(len(fields - NewTask.model_fields.keys()) for fields in names) > MAX_FIELDS:
            raise ValueError(f"Input should have no unknown members and has more than {MAX_FIELDS}")
    return tasks


class NewTasks(Input):
    """The tasks to create."""

    tasks: Annotated[
        list[NewTask],
        BeforeValidator(_check_size),
        Field(min_length=1, max_length=MAX_TASKS, examples=[[{"title": "Prepare Report"}, {"title": "Send it"}]]),
    ]


class TaskList(BaseModel):
    """The created tasks, in the order of the request."""

    items: list[Task]


async def create(db: Executor, viewer: Viewer, new: NewTasks, *, weather: WeatherClient) -> Sequence[Mapping[str, Any]]:
    """Create tasks that the viewer owns and return their rows, with the weather that is found in time."""
    found = await weather.find_many({one.city for one in new.tasks if one.city is not None})
    async with db.transaction() if isinstance(db, Database) else nullcontext(db) as transaction:
        rows = await q.tasks.create_many(
            transaction,
            user_id=viewer.id,
            titles=[one.title for one in new.tasks],
            descriptions=[one.description for one in new.tasks],
            statuses=[one.status for one in new.tasks],
            cities=[one.city for one in new.tasks],
            weathers=[found.get(one.city or "") for one in new.tasks],
        )
        if len(rows) < len(new.tasks):
            raise discarded("tasks.create_many")
    first, last = rows[0]["id"], rows[-1]["id"]
    logger.bind(tasks=len(rows), first_id=first, last_id=last, actor_id=viewer.id).info("tasks created")
    return rows
