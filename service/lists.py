"""Pages of tasks: which form of a list is the fastest, and where its walk begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from service.db.pool import Database, Executor
from service.db.queries import q

Sort = Literal[
    "created_at",
    "-created_at",
    "updated_at",
    "-updated_at",
    "title",
    "-title",
    "status",
    "-status",
    "id",
    "-id",
]

# The share of all tasks from which on it costs more to read a period than to walk past all others.
WIDE = 0.4
BOUNDS = {
    "id": ("first_id", "last_id"),
    "status": ("first_id", "last_id"),  # its index goes on by id
    "updated_at": ("changed_from", "changed_before"),
}
"""What of `tasks.period` bounds a walk in the order of a column."""
NO_BOUNDS: dict[str, Any] = dict.fromkeys(name for names in BOUNDS.values() for name in names)


async def rows(db: Database, *, sort: Sort, sought: str | None = None, **values: Any) -> Sequence[Mapping[str, Any]]:
    """Give the rows of `tasks.search` where words are sought, else of `tasks.list`, by its fastest form."""
    column = sort.removeprefix("-")
    of_period = bool(values["created_from"] or values["created_before"])
    everyones = values["viewer_is_admin"] and values["user_id"] is None
    if sought is not None:
        async with db.snapshot() as moment:
            values |= await bounds(moment, column, values)
            return await q.tasks.search(moment, sort=sort, sought=sought, within_period=column != "title", **values)
    if of_period and everyones and column in BOUNDS:
        async with db.snapshot() as moment:
            values |= await bounds(moment, column, values)
            return await q.tasks.list_far(moment, sort=sort, **values)
    if of_period and (sort == "title" or sort == "-title"):  # noqa: PLR1714 - mypy narrows by no others
        share = await q.tasks.share_of_period(
            db, created_from=values["created_from"], created_before=values["created_before"]
        )
        if share is None or share < WIDE:
            return await q.tasks.list_of_period(db, sort=sort, **values)
    if values["row_offset"] or (of_period and column != "created_at"):
        return await q.tasks.list_far(db, sort=sort, **values, **NO_BOUNDS)
    return await q.tasks.list(db, sort=sort, **values)


async def bounds(db: Executor, column: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Give where a walk in the order of the column begins and ends, as far as the period says."""
    if column not in BOUNDS or not (values["created_from"] or values["created_before"]):
        return NO_BOUNDS
    lies = dict(await q.tasks.period(db, created_from=values["created_from"], created_before=values["created_before"]))
    return NO_BOUNDS | {name: lies[name] for name in BOUNDS[column]}
