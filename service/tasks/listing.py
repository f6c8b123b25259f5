"""Pages and exports of tasks: which form of a list is the fastest, and where its walk begins."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from service.core.errors import ForbiddenError, InvalidError
from service.core.pagination import Cursors
from service.core.viewer import Viewer
from service.db.pool import Database, Executor
from service.db.queries import q
from service.tasks.schemas import ExportQuery, Sort, TaskFilters, TaskQuery

# The share of all tasks from which on it costs more to read a period than to walk past all others.
WIDE = 0.4
BOUNDS = {
    "id": ("first_id", "last_id"),
    "status": ("first_id", "last_id"),  # its index goes on by id
    "updated_at": ("changed_from", "changed_before"),
}
"""What of `tasks.period_bounds` bounds a walk in the order of a column."""
NO_BOUNDS: dict[str, Any] = dict.fromkeys(name for names in BOUNDS.values() for name in names)


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
            return await q.tasks.list_index_only(moment, sort=sort, **values)
    if of_period and (sort == "title" or sort == "-title"):  # noqa: PLR1714 - mypy narrows by no others
        share = await q.tasks.period_fraction(
            db, created_from=values["created_from"], created_before=values["created_before"]
        )
        if share is None or share < WIDE:
            return await q.tasks.list_period_by_title(db, sort=sort, **values)
    if values["row_offset"] or (of_period and column != "created_at"):
        return await q.tasks.list_index_only(db, sort=sort, **values, **NO_BOUNDS)
    return await q.tasks.list(db, sort=sort, **values)


async def bounds(db: Executor, column: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Give where a walk in the order of the column begins and ends, as far as the period says."""
    if column not in BOUNDS or not (values["created_from"] or values["created_before"]):
        return NO_BOUNDS
    lies = dict(
        await q.tasks.period_bounds(db, created_from=values["created_from"], created_before=values["created_before"])
    )
    return NO_BOUNDS | {name: lies[name] for name in BOUNDS[column]}
