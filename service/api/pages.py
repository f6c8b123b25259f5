"""The pages `/docs` and `/redoc`, which load nothing from another server."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request, Response
from starlette.routing import Route

STATIC_PATH = "/static-offline-docs"
REDOC = "redoc.standalone.js"
# Redoc loads the logo of its maker from a CDN. It shows no logo if the image cannot be read.
REMOTE_LOGO, NO_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,"
# Swagger UI can send the document to a validator on the internet.
SWAGGER = {"persistAuthorization": True, "validatorUrl": None}


@cache
def redoc_script() -> bytes:
    """Return Redoc's script without the address of the logo."""
    return (Path(fastapi_offline.__file__).parent / "static" / REDOC).read_bytes().replace(REMOTE_LOGO, NO_LOGO)


def _redoc(_request: Request) -> Response:
    return Response(redoc_script(), media_type="text/javascript")


def pages(app: FastAPI) -> FastAPI:
    """Return the application that serves the document of `app` and the pages that show it."""
    documents: FastAPI = fastapi_offline.FastAPIOffline(
        title=app.title, redirect_slashes=False, static_url=STATIC_PATH, swagger_ui_parameters=SWAGGER
    )
    documents.openapi = app.openapi  # type: ignore[method-assign]  # FastAPI documents this as the way
    documents.router.routes.insert(0, Route(f"{STATIC_PATH}/{REDOC}", _redoc))  # before the mount of all such files
    return documents
