"""A pipeline in front of one endpoint, without limits and services."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette

from service.api.pipeline.body_limits import BodyLimits
from service.api.pipeline.request_pipeline import RequestHandler, RequestPipeline
from service.api.routes import websocket
from service.ratelimit.login_limiter import Limits


def pipeline_to(endpoint: RequestHandler, *, cors: dict[str, Any] | None = None) -> RequestPipeline:
    """Return a pipeline whose requests are all answered by one endpoint."""
    app = Starlette()
    app.state.services = SimpleNamespace(limits=Limits(requests=None, logins=None))
    return RequestPipeline(
        app,
        find_endpoint=lambda _scope: endpoint,
        documents=app,
        serve_websocket=websocket.serve,
        body_limits=BodyLimits(max_attachment_bytes=0),
        cors=cors,
    )
