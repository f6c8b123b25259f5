"""Routes of the service's SQL statements, for administrators; they exist if SQL_ADMIN is set."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from service.api import responses
from service.api.authentication import Administrator
from service.api.openapi import problems
from service.api.request_checks import no_query
from service.api.state import State
from service.dba import admin_view

router = APIRouter(prefix="/admin/queries", tags=["administration"], dependencies=[no_query])
DETAILS = {403: "Only administrators may do this.", 404: "There is no statement 'reports.none'."}


class TypedName(BaseModel):
    """A parameter or a column of a statement."""

    name: Annotated[str, Field(examples=["task_id"])]
    type: Annotated[str, Field(examples=["bigint"])]
    nullable: bool


class StatementStatistics(BaseModel):
    """The cost of a statement, in one of its sort orders, since pg_stat_statements was last reset."""

    name: Annotated[str, Field(examples=["tasks.list -created_at"])]
    calls: int
    total_ms: float
    mean_ms: float
    rows: int
    hit_percent: Annotated[float | None, Field(description="The share of the blocks read that were in memory.")]
    spilled_blocks: int


class StatementDescription(BaseModel):
    """A statement, as its header and the schema describe it."""

    name: Annotated[str, Field(examples=["tasks.get"])]
    file: Annotated[str, Field(examples=["sql/tasks/get.sql"])]
    sentence: Annotated[str, Field(examples=["Return one task, and whether the viewer may see it."])]
    returns: Annotated[str, Field(examples=["row?"])]
    params: list[TypedName]
    columns: list[TypedName]
    sorts: Annotated[list[str], Field(examples=[[]])]
    reads: Annotated[list[str], Field(description="Tables.", examples=[["tasks"]])]
    writes: Annotated[list[str], Field(description="Tables.", examples=[[]])]
    index: Annotated[
        list[str], Field(description="The indexes by which it reads large tables.", examples=[["tasks_pkey"]])
    ]
    scans: Annotated[list[str], Field(description="The large tables that it reads as a whole.", examples=[[]])]
    raises: Annotated[
        dict[str, str], Field(description="The constraints that it may violate, and the error that each becomes.")
    ]
    notifies: Annotated[str | None, Field(examples=[None])]
    extension: Annotated[str | None, Field(description="The extension that it requires.", examples=[None])]
    why: Annotated[str | None, Field(examples=[None])]
    run_by: Annotated[
        list[str], Field(description="The routes and commands that run it.", examples=[["GET /tasks/{task_id}"]])
    ]
    statistics: Annotated[list[StatementStatistics], Field(alias="figures", description="One per sort order.")]


class StatementList(BaseModel):
    """All statements."""

    items: list[StatementDescription]
    statistics_hint: Annotated[
        str | None,
        Field(alias="figures_missing", description="How to enable the statistics, if there are none.", examples=[None]),
    ]


class StatementPlan(BaseModel):
    """The database's plan for a statement."""

    name: Annotated[str, Field(examples=["tasks.get"])]
    file: Annotated[str, Field(examples=["sql/tasks/get.sql"])]
    sentence: Annotated[str, Field(examples=["Return one task, and whether the viewer may see it."])]
    plan: Annotated[
        dict[str, Any],
        Field(
            description="The plan as EXPLAIN returns it, in JSON.",
            examples=[{"Plan": {"Node Type": "Index Scan", "Relation Name": "tasks", "Index Name": "tasks_pkey"}}],
        ),
    ]
    lines: Annotated[
        list[str],
        Field(description="The same plan as text.", examples=[["Index Scan using tasks_pkey on tasks t"]]),
    ]


@router.get(
    "", summary="List SQL statements", response_model=StatementList, responses=problems(401, 403, details=DETAILS)
)
async def list_statements(state: State, _viewer: Administrator) -> Response:
    """List the service's SQL statements.

    Each comes with its parameters, columns and tables, the routes and commands that run it, and its cost.
    """
    return responses.json(await admin_view.listing(state.reports))


@router.get(
    "/{name}/plan",
    summary="Read the plan of an SQL statement",
    response_model=StatementPlan,
    responses=problems(401, 403, 404, details=DETAILS),
)
async def get_statement_plan(
    state: State,
    _viewer: Administrator,
    name: Annotated[
        str,
        Path(
            max_length=200,
            examples=["tasks.list title"],
            description="The statement's name; for a list, followed by a sort order.",
        ),
    ],
) -> Response:
    """Return the plan of a statement without parameter values. The statement is not run."""
    return responses.json(await admin_view.plan(state.reports, name))
