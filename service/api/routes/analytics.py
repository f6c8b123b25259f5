"""Routes of analytics: counts of tasks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.analytics import operations
from service.analytics.schemas import Analytics, AnalyticsParams, Timeseries, TimeseriesParams
from service.api import responses
from service.api.authentication import CurrentUser
from service.api.openapi import problems
from service.api.request_checks import each_once
from service.api.state import State

router = APIRouter(prefix="/analytics", tags=["analytics"])
FORBIDDEN = {403: "Only an administrator sees another's statistics."}


@router.get(
    "",
    summary="Count tasks by status and owner",
    response_model=Analytics,
    dependencies=[each_once],
    responses=problems(401, 403, details=FORBIDDEN),
)
async def get_analytics(state: State, viewer: CurrentUser, query: Annotated[AnalyticsParams, Query()]) -> Response:
    """Count the tasks that were created in a period, by status and by owner.

    The counts of a user cover their own tasks, and those of an administrator all tasks.
    """
    return responses.json(await operations.summary(state.reports, viewer, query))


@router.get(
    "/timeseries",
    summary="Count tasks over time",
    response_model=Timeseries,
    dependencies=[each_once],
    responses=problems(401, 403, details=FORBIDDEN),
)
async def get_timeseries(state: State, viewer: CurrentUser, query: Annotated[TimeseriesParams, Query()]) -> Response:
    """Count the tasks created and completed per day, week or month of a period, and how long they took to complete.

    Without `start_date` the period starts with the first task; without `end_date` it ends now. The first and the last
    bucket count only what is within the period. If there is no task, there is no bucket. A period has at most 1,000
    buckets.
    """
    return responses.json(await operations.timeseries(state.reports, viewer, query))
