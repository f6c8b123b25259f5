"""What a declaration of a route may hold: anything else is refused when the service starts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Cookie, Depends, Header, Query, Request, Response
from pydantic import BaseModel

from service.api.router import Router


class Model(BaseModel):
    """A body, or all query parameters."""

    name: str = ""


def generated() -> Iterator[int]:
    yield 1


async def async_generated() -> AsyncIterator[int]:
    yield 1


class Callable_:
    """A dependency that is not a function."""

    def __call__(self, request: Request) -> Request:
        return request


async def cookie(_x: Annotated[str, Cookie()]) -> Response:
    return Response()


async def background(_x: BackgroundTasks) -> Response:
    return Response()


async def single_query(_x: Annotated[str, Query()]) -> Response:
    return Response()


async def required_header(_x: Annotated[str, Header()]) -> Response:
    return Response()


async def optional_body(_x: Annotated[Model | None, Body()] = None) -> Response:
    return Response()


async def generator(_x: Annotated[Any, Depends(generated)]) -> Response:
    return Response()


async def async_generator(_x: Annotated[Any, Depends(async_generated)]) -> Response:
    return Response()


async def instance(_x: Annotated[Any, Depends(Callable_())]) -> Response:
    return Response()


def plain() -> Response:
    return Response()


@pytest.mark.parametrize(
    "handler",
    [
        cookie,
        background,
        single_query,
        required_header,
        optional_body,
        generator,
        async_generator,
        instance,
        plain,
    ],
)
def test_a_kind_of_parameter_that_is_not_supported_is_refused(handler: Any) -> None:
    routes = APIRouter()
    routes.add_api_route("/path", handler, methods=["POST"], response_model=None)
    with pytest.raises(TypeError):
        Router(document_prefixes=()).add(routes)


async def good() -> Response:
    return Response()


@pytest.mark.parametrize("paths", [["/a/{x:path}"], ["/a/{x}.csv"], ["/a/{x}", "/a/{y}"], ["/a", "/a"], ["/a.b"]])
def test_a_path_that_is_not_supported_is_refused(paths: list[str]) -> None:
    routes = APIRouter()
    for path in paths:
        routes.add_api_route(path, good, response_model=None)
    with pytest.raises(TypeError):
        Router(document_prefixes=()).add(routes)
