"""Routes of the statements that the service runs, for administrators; there where SQL_ADMIN is set."""

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


class Typed(BaseModel):
    """A parameter or a column."""

    name: str
    type: Annotated[str, Field(examples=["bigint"])]
    nullable: bool


class QueryFigures(BaseModel):
    """What a statement, in one of its sorts, has cost since the figures were last reset."""

    name: Annotated[str, Field(examples=["tasks.list -created_at"])]
    calls: int
    total_ms: float
    mean_ms: float
    rows: int
    hit_percent: Annotated[float | None, Field(description="How many of the blocks that it read were in memory.")]
    spilled_blocks: int


class Query(BaseModel):
    """A statement."""

    name: Annotated[str, Field(examples=["tasks.get"])]
    file: Annotated[str, Field(examples=["sql/tasks/get.sql"])]
    sentence: str
    returns: str
    params: list[Typed]
    columns: list[Typed]
    sorts: list[str]
    reads: Annotated[list[str], Field(description="Tables.")]
    writes: list[str]
    index: Annotated[list[str], Field(description="What it reads a large table by.")]
    scans: Annotated[list[str], Field(description="Large tables that it reads as a whole.")]
    raises: Annotated[dict[str, str], Field(description="Constraints that it may violate, and what that means.")]
    notifies: str | None
    extension: str | None
    why: str | None
    run_by: Annotated[list[str], Field(description="Routes and commands.", examples=[["GET /tasks/{task_id}"]])]
    figures: list[QueryFigures]


class QueryList(BaseModel):
    """All statements."""

    items: list[Query]
    figures_missing: Annotated[str | None, Field(description="How to switch figures on, where there are none.")]


class QueryPlan(BaseModel):
    """How the database would carry a statement out."""

    name: str
    file: str
    sentence: str
    plan: Annotated[dict[str, Any], Field(description="PostgreSQL's own, as EXPLAIN gives it.")]
    lines: Annotated[list[str], Field(description="The same, to read.")]


@router.get("", response_model=QueryList, responses=problems(401, 403))
async def list_queries(state: State, _viewer: Administrator) -> Response:
    """List every statement of the service: what it takes, gives and touches, what runs it, and what it has cost."""
    return responses.json(await admin_view.listing(state.reports))


@router.get("/{name}/plan", response_model=QueryPlan, responses=problems(401, 403, 404))
async def get_plan(
    state: State,
    _viewer: Administrator,
    name: Annotated[str, Path(max_length=200, examples=["tasks.list title"], description="With its sort, for a list.")],
) -> Response:
    """Give a statement's plan without values; nothing is carried out."""
    return responses.json(await admin_view.plan(state.reports, name))
