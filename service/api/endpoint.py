"""Endpoints: the way from a request to its response, compiled once from the signature that FastAPI documents.

FastAPI declares a route and describes it. Its own way solves the dependencies in each request, which takes several
times as long. Checks, their order and their errors are FastAPI's: the body is parsed, then dependencies run in order,
then path, query, headers and body are validated together. Other than there, a dependency is never `async`, runs on the
event loop, and runs each time that it is declared. What a declaration has beyond that is refused at the start.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction, isfunction, isgeneratorfunction
from typing import Any, TypeAlias

from fastapi import Request, Response
from fastapi._compat import ModelField, field_annotation_is_sequence
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from typing_extensions import override

from service.api import json_text
from service.api.headers import headers_of, query_of
from service.api.request_checks import MERGE_PATCH, media_type, whole_body

Errors: TypeAlias = list[dict[str, Any]]
NO_BODY: Any = object()


class Endpoint:
    """One route, compiled: a callable that returns the response to a request."""

    def __init__(self, route: APIRoute) -> None:
        if not iscoroutinefunction(route.endpoint):
            raise TypeError(f"{route.endpoint}: a handler is declared with `async def`")
        self._handler = Call(route.dependant)
        self._has_json_body = bool(route.dependant.body_params)
        self._skips_body = whole_body in route.dependencies

    async def __call__(self, request: Request) -> Response:
        """Return the response.

        Raises: RequestValidationError for invalid values, HTTPException for a body that cannot be read, and whatever
        the dependencies and the handler raise.
        """
        errors: Errors = []
        body = NO_BODY
        if self._has_json_body:
            body = await _parse_body(request)
        elif self._skips_body:
            await _read_body(request)
        arguments = self._handler.arguments(request, body, errors)
        if errors:
            raise RequestValidationError(errors)
        response: Response = await self._handler.function(**arguments)
        return response


class Call:
    """A handler or dependency with the compiled sources of its arguments.

    Raises: TypeError for a parameter of a kind that is not known here, when the service starts.
    """

    def __init__(self, dependant: Dependant) -> None:
        assert dependant.call is not None
        _refuse_unknown(dependant)
        schemes = [one for one in dependant.dependencies if isinstance(one.call, SecurityBase)]
        documented: dict[str, Any] = {one.name: None for one in schemes if one.name}
        self.function: Callable[..., Any] = partial(dependant.call, **documented) if documented else dependant.call
        self._dependencies = [
            (dependency.name, _compile_dependency(dependency))
            for dependency in dependant.dependencies
            if not isinstance(dependency.call, SecurityBase)
        ]
        self._request_name = dependant.request_param_name
        self._sources: list[tuple[str, Source]] = [
            *[(field.name, PathParameter(field)) for field in dependant.path_params],
            *[(field.name, QueryModel(field)) for field in dependant.query_params],
            *[(field.name, Header(field)) for field in dependant.header_params],
            *[(field.name, JsonBody(field)) for field in dependant.body_params],
        ]
        # Most dependencies: called without the work of collecting arguments (2 us each).
        self.takes_request_alone = self._request_name is not None and not (self._dependencies or self._sources)

    def arguments(self, request: Request, body: Any, errors: Errors) -> dict[str, Any]:
        """Return the arguments by name; what is invalid is added to `errors`."""
        values: dict[str, Any] = {}
        for name, dependency in self._dependencies:
            if dependency.takes_request_alone:
                result = dependency.function(request)
            else:
                result = dependency.result(request, body, errors)
            if name is not None:
                values[name] = result
        for name, source in self._sources:
            values[name] = source.value(request, body, errors)
        if self._request_name is not None:
            values[self._request_name] = request
        return values

    def result(self, request: Request, body: Any, errors: Errors) -> Any:
        """Return the result of a dependency; None if one of its arguments is invalid."""
        error_count = len(errors)
        values = self.arguments(request, body, errors)
        return None if len(errors) > error_count else self.function(**values)


class Source:
    """Where the value of one parameter comes from. `place` is where an error says that it is."""

    def __init__(self, field: ModelField, *place: str) -> None:
        self._field = field
        self._place = place
        self._validator = field._type_adapter.validator

    def value(self, request: Request, body: Any, errors: Errors) -> Any:
        """Return the validated value, or add what is invalid to `errors`."""
        raise NotImplementedError

    def _validate(self, value: Any, errors: Errors) -> Any:
        try:
            return self._validator.validate_python(value, from_attributes=True)
        except ValidationError:  # FastAPI's way gives its errors their form
            result, found = self._field.validate(value, loc=self._place)
            errors += found
            return result


class PathParameter(Source):
    """A segment of the path."""

    def __init__(self, field: ModelField) -> None:
        super().__init__(field, "path", field.alias)

    @override
    def value(self, request: Request, body: Any, errors: Errors) -> Any:
        return self._validate(request.scope["path_params"][self._field.alias], errors)


class QueryModel(Source):
    """All query parameters, as one model. A field of a list type has the values of all that carry its name."""

    def __init__(self, field: ModelField) -> None:
        super().__init__(field, "query")
        model = field.field_info.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"{field.name}: query parameters are declared as one model")
        self._lists = {name for name, one in model.model_fields.items() if field_annotation_is_sequence(one.annotation)}

    @override
    def value(self, request: Request, body: Any, errors: Errors) -> Any:
        parameters: dict[str, Any] = {}
        for name, value in query_of(request.scope):
            if name in self._lists:
                parameters.setdefault(name, []).append(value)
            else:
                parameters[name] = value
        return self._validate(parameters, errors)


class Header(Source):
    """An optional request header. One of a list type has the values of all its lines."""

    def __init__(self, field: ModelField) -> None:
        super().__init__(field, "header", field.alias)
        if field.field_info.is_required():
            raise TypeError(f"{field.name}: a header is declared as optional")
        self._raw_name = field.alias.lower().encode("latin-1")
        self._default = field.get_default()
        self._is_list = field_annotation_is_sequence(field.field_info.annotation)

    @override
    def value(self, request: Request, body: Any, errors: Errors) -> Any:
        first = headers_of(request.scope).get(self._raw_name)
        if first is None:
            return self._default
        if self._is_list:
            return self._validate(request.headers.getlist(self._field.alias), errors)
        return self._validate(first.decode("latin-1"), errors)


class JsonBody(Source):
    """The body of the request, as one model."""

    def __init__(self, field: ModelField) -> None:
        super().__init__(field, "body")
        if not field.field_info.is_required():
            raise TypeError(f"{field.name}: a body is declared as required")

    @override
    def value(self, request: Request, body: Any, errors: Errors) -> Any:
        if body is not NO_BODY:
            return self._validate(body, errors)
        errors.append({"type": "missing", "loc": self._place, "msg": "Field required", "input": None})
        return None


def _compile_dependency(dependant: Dependant) -> Call:
    if iscoroutinefunction(dependant.call):
        raise TypeError(f"{dependant.call}: a dependency is declared without `async`")
    return Call(dependant)


def _refuse_unknown(dependant: Dependant) -> None:
    unknown = (
        dependant.cookie_params
        or dependant.websocket_param_name
        or dependant.http_connection_param_name
        or dependant.response_param_name
        or dependant.background_tasks_param_name
        or dependant.security_scopes_param_name
        or len(dependant.query_params) > 1
        or len(dependant.body_params) > 1
        or not isfunction(dependant.call)
        or isgeneratorfunction(dependant.call)
        or isasyncgenfunction(dependant.call)
    )
    if unknown:
        raise TypeError(f"{dependant.call}: a parameter of a kind that endpoints do not support")


async def _parse_body(request: Request) -> Any:
    """Return the JSON value of the body; NO_BODY if there is none, or one that is not declared as JSON."""
    try:
        body = await _read_body(request)
        return json_text.parse(body) if body and media_type(request) in MERGE_PATCH else NO_BODY
    except json.JSONDecodeError as error:
        raise RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": error.msg}]) from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body cannot be read as JSON.") from None


async def _read_body(request: Request) -> bytes:
    """Return the whole body. Raises: ClientDisconnect. Starlette's two generators take 15 us more."""
    parts = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
