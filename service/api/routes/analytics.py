"""Routes of figures over tasks."""

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


@router.get("", response_model=Analytics, dependencies=[each_once], responses=problems(401, 403))
async def get_analytics(state: State, viewer: CurrentUser, query: Annotated[AnalyticsParams, Query()]) -> Response:
    """Count the tasks created in a period by status and by owner: one's own, and for an administrator everyone's."""
    return responses.json(await operations.summary(state.reports, viewer, query))


@router.get("/timeseries", response_model=Timeseries, dependencies=[each_once], responses=problems(401, 403))
async def get_timeseries(state: State, viewer: CurrentUser, query: Annotated[TimeseriesParams, Query()]) -> Response:
    """Count the tasks created and completed in each day, week or month of a period, and how long those took.

    A period that is open goes from the first task to now; where there is no task, there is no bucket. The first and the
    last bucket hold what is within the period. At most 1,000 buckets.
    """
    return responses.json(await operations.timeseries(state.reports, viewer, query))
