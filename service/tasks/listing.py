"""Pages and exports of tasks, each read by the statement that is fastest for its filters and order."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from service.core.errors import ForbiddenError, InvalidError
from service.core.pagination import Cursors
from service.core.viewer import Viewer
from service.db.pool import Database, Executor
from service.db.queries import q
from service.tasks.schemas import ExportParams, Sort, TaskFilters, TaskListParams

# From this fraction of all tasks on, sorting a period's tasks costs more than an index scan that skips all others.
WIDE_PERIOD_FRACTION = 0.4
# tasks.search_walk passes at most three pages and so many tasks. It goes far where tasks.search would look up the last
# change or status of each match: the first page of a word of 6,000 in a million tasks takes 13 ms in place of 40.
PAGES_WALKED = 3
SHORT_WALK, LONG_WALK = 1000, 4000
BOUNDS = {
    "id": ("first_id", "last_id"),
    "status": ("first_id", "last_id"),  # the second column of its index is the id
    "updated_at": ("changed_from", "changed_before"),
}
"""The columns of `tasks.period_bounds` that bound an index scan in the order of a column."""
NO_BOUNDS: dict[str, Any] = dict.fromkeys(name for names in BOUNDS.values() for name in names)


async def page(db: Database, viewer: Viewer, params: TaskListParams, *, cursors: Cursors) -> dict[str, Any]:
    """Return a page of tasks as `{items, next_cursor, total}`.

    Raises: ForbiddenError for another user's tasks, InvalidError for a cursor of another list.
    """
    filters = _filters(viewer, params)
    if params.cursor is not None and params.offset is not None:
        raise InvalidError("Input should be absent if there is a cursor", pointer="/query/offset")
    request = cursors.page(params.cursor, limit=params.limit, bound_to=[params.sort, filters])
    offset = params.offset or 0
    rows = await fetch_rows(
        db,
        sort=params.sort,
        **filters,
        after_value=request.after_value,
        after_id=request.after_id,
        row_limit=request.row_limit,
        row_offset=offset,
    )
    return {
        **request.cut(rows, sort_value=itemgetter(params.sort.removeprefix("-"))),
        "total": await _total(db, params, filters, shown=offset + len(rows) if rows else 0),
    }


def export(db: Database, viewer: Viewer, params: ExportParams) -> AsyncGenerator[Sequence[Mapping[str, Any]]]:
    """Return batches of all tasks that match the filters, from one snapshot. Raises: ForbiddenError."""
    return q.tasks.export.stream(db, **_filters(viewer, params))


def _filters(viewer: Viewer, params: TaskFilters) -> dict[str, Any]:
    """Return the statements' filter parameters, whose names and order every cursor is bound to."""
    if params.user_id not in (None, viewer.id) and not viewer.is_admin:
        raise ForbiddenError("Only an administrator sees another's tasks.")
    return {
        "viewer_id": viewer.id,
        "viewer_is_admin": viewer.is_admin,
        "user_id": params.user_id,
        "status": sorted(set(params.status)) if params.status else None,
        "city": params.city,
        "created_from": params.start_date,
        "created_before": params.end_date,
        "sought": params.q,
    }


async def _total(db: Database, params: TaskListParams, filters: dict[str, Any], *, shown: int) -> int | None:
    """Return the total that `count` asks for; an estimate is at least the number of rows shown so far."""
    if params.count == "exact":
        return await count_rows(db, filters)
    if params.count == "estimated":
        return max(shown, await q.tasks.export.estimate(db, **filters))
    return None


async def count_rows(db: Database, filters: dict[str, Any]) -> int:
    """Return the number of tasks that match the filters."""
    if filters["sought"] is not None:
        async with db.snapshot() as snapshot:
            return int(await q.tasks.count_search(snapshot, **filters))
    return int(await q.tasks.count(db, **{name: filters[name] for name in filters if name != "sought"}))


async def fetch_rows(
    db: Database, *, sort: Sort, sought: str | None = None, **values: Any
) -> Sequence[Mapping[str, Any]]:
    """Return the rows of a text search, or of the fastest form of the list."""
    column = sort.removeprefix("-")
    has_period = bool(values["created_from"] or values["created_before"])
    covers_all_users = values["viewer_is_admin"] and values["user_id"] is None
    if sought is not None:
        return await _search(db, sort, sought, covers_all_users=covers_all_users, **values)
    if has_period and covers_all_users and column in BOUNDS:
        async with db.snapshot() as snapshot:
            values |= await fetch_bounds(snapshot, column, values)
            return await q.tasks.list_index_only(snapshot, sort=sort, **values)
    if not covers_all_users and sort != "created_at" and sort != "-created_at":  # noqa: PLR1714 - mypy narrows by == alone
        return await q.tasks.list_of_user(db, sort=sort, **values)
    if has_period and (sort == "title" or sort == "-title"):  # noqa: PLR1714
        fraction = await q.tasks.period_fraction(
            db, created_from=values["created_from"], created_before=values["created_before"]
        )
        if fraction is None or fraction < WIDE_PERIOD_FRACTION:
            return await q.tasks.list_period_by_title(db, sort=sort, **values)
    if values["row_offset"] or (has_period and column != "created_at"):
        return await q.tasks.list_index_only(db, sort=sort, **values, **NO_BOUNDS)
    return await q.tasks.list(db, sort=sort, **values)


async def _search(
    db: Database, sort: Sort, sought: str, *, covers_all_users: bool, **values: Any
) -> Sequence[Mapping[str, Any]]:
    """Return the rows of a bounded walk along the order, or of all matches where the walk fills no page."""
    column = sort.removeprefix("-")
    has_period = bool(values["created_from"] or values["created_before"])
    long_walk = covers_all_users and not has_period and column in {"status", "updated_at"}
    pages_length = PAGES_WALKED * (values["row_limit"] + values["row_offset"])
    search = {
        **values,
        "sought": sought,
        # A user's tasks of a period are sorted from tasks_user_created_idx, in the order of titles as well.
        "within_period": column != "title" or not covers_all_users,
        "walk_limit": pages_length + (LONG_WALK if long_walk else SHORT_WALK),
    }
    async with db.snapshot() as snapshot:
        bounds = await fetch_bounds(snapshot, column, values)
        rows = await q.tasks.search_walk(snapshot, sort=sort, **search, **bounds)
        if len(rows) == values["row_limit"]:
            return rows
        return await q.tasks.search(snapshot, sort=sort, **search) or rows


async def fetch_bounds(db: Executor, column: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bounds that the period sets to an index scan in the order of a column."""
    if column not in BOUNDS or not (values["created_from"] or values["created_before"]):
        return NO_BOUNDS
    found = dict(
        await q.tasks.period_bounds(db, created_from=values["created_from"], created_before=values["created_before"])
    )
    return NO_BOUNDS | {name: found[name] for name in BOUNDS[column]}
