"""Twin C, the ceiling: bare ASGI over raw connections on a free list; no authentication, PostgreSQL makes the JSON."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeAlias
from urllib.parse import parse_qs

import asyncpg
import orjson

from tests.benchmarks.twins import common

COLUMNS = "id, title, description, status, created_at, city, weather, user_id"
GET = f"select row_to_json(t)::text from (select {COLUMNS} from tasks where id = $1) as t"
LIST = f"""
select coalesce(json_agg(row_to_json(t)), '[]')::text
from (
    select {COLUMNS} from tasks where user_id = $1 and status = $2 order by created_at desc, id desc limit $3
) as t
"""
CREATE = f"""
with t as (
    insert into tasks (title, description, status, city, user_id) values ($1, $2, $3, $4, $5) returning {COLUMNS}
)
select row_to_json(t)::text from t
"""
PATCH = f"""
with t as (update tasks set title = $3 where id = $1 and user_id = $2 returning {COLUMNS})
select row_to_json(t)::text from t
"""
ANALYTICS = """
with counted as materialized (
    select user_id, status, count(*) as number
    from tasks
    where ($1::bigint is null or user_id = $1) and created_at >= $2 and created_at < $3
    group by user_id, status
),

by_status as (select status, sum(number) as number from counted group by status),

by_user as (select user_id, sum(number) as number from counted group by user_id)

select json_build_object(
    'by_status', (select coalesce(json_object_agg(status, number), '{}') from by_status),
    'by_user', (select coalesce(json_object_agg(user_id, number), '{}') from by_user)
)::text
"""
JSON = (b"content-type", b"application/json")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class FreeList:
    """Raw connections; who finds none waits for the next."""

    def __init__(self) -> None:
        self._free: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection]] = deque()

    async def open(self, url: str) -> None:
        """Open all connections."""
        self._free = [await asyncpg.connect(url) for _ in range(common.POOL_SIZE)]

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._free:
            await connection.close()

    async def fetchval(self, statement: str, *values: object) -> Any:
        """Run a statement on the next free connection."""
        if self._free:
            connection = self._free.pop()
        else:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            connection = await waiting
        try:
            return await connection.fetchval(statement, *values)
        finally:
            if self._waiting:
                self._waiting.popleft().set_result(connection)
            else:
                self._free.append(connection)


class Bare:
    """The application."""

    def __init__(self, url: str, *, reader_id: int, author_id: int) -> None:
        self._url = url
        self._reader_id = reader_id
        self._author_id = author_id
        self._connections = FreeList()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        status, text = await self._answer(scope, receive)
        body = (text or "{}").encode()
        headers = [JSON, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status if text else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def open(self) -> None:
        """Open the connections."""
        await self._connections.open(self._url)

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Message, receive: Receive) -> tuple[int, str | None]:
        path, method, fetchval = scope["path"], scope["method"], self._connections.fetchval
        if path.startswith("/tasks/"):
            if method == "GET":
                return 200, await fetchval(GET, int(path[7:]))
            patch = orjson.loads(await _body(receive))
            return 200, await fetchval(PATCH, int(path[7:]), self._reader_id, patch["title"])
        if path == "/tasks" and method == "POST":
            new = orjson.loads(await _body(receive))
            values = (new["title"], new["description"], new["status"], new["city"])
            return 201, await fetchval(CREATE, *values, self._author_id)
        query = parse_qs(scope["query_string"].decode())
        if path == "/tasks":
            return 200, await fetchval(LIST, self._reader_id, query["status"][0], int(query["limit"][0]))
        if path == "/analytics":
            begin, end = (datetime.fromisoformat(query[name][0]) for name in ("start_date", "end_date"))
            owner = None if (b"x-admin", b"1") in scope["headers"] else self._reader_id
            return 200, await fetchval(ANALYTICS, owner, begin, end)
        return 404, None


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    return body


app = Bare(common.DATABASE_URL, reader_id=common.READER_ID, author_id=common.AUTHOR_ID)
