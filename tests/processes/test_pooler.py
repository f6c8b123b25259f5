"""Two processes that share two database sessions through a PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import httpx
import psycopg
import pytest
from websockets.sync.client import connect

from tests.conftest import SECRET_KEY
from tests.support.bouncer import bouncing
from tests.support.servers import WAIT_SECONDS, Server, refusal, run, serving, until

PASSWORD = "correct horse battery staple"
AT_ONCE, ROUNDS = 8, 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module_database_url: str) -> Iterator[Server]:
    """Two workers that use the pooler; the administrator was created without it."""
    folder = tmp_path_factory.mktemp("server")
    with bouncing(module_database_url) as url:
        values = {"DATABASE_URL": url, "DATABASE_LISTEN_URL": module_database_url, "DATABASE_POOLER": "transaction"}
        run(folder, "create-admin", "root", "--password-stdin", stdin_text=PASSWORD, **values).check_returncode()
        with serving(folder, WORKERS="2", RATE_LIMIT_PER_MINUTE="0", **values) as server:
            until(lambda: server.log().count(" ready\n") == 2)
            yield server


def logged_in(server: Server) -> httpx.Client:
    with server.client() as http:
        answer = http.post("/auth/login", json={"username": "root", "password": PASSWORD}).raise_for_status()
    return server.client(answer.json()["access_token"])


def test_requests_of_all_kinds_go_on_at_once(server: Server, module_database_url: str) -> None:
    with logged_in(server) as http:
        token = http.headers["Authorization"].removeprefix("Bearer ")

    exporting = Lock()  # each process takes few at once

    def work(number: int) -> None:
        with server.client(token) as http:
            http.timeout = WAIT_SECONDS
            for one in range(ROUNDS):
                key = {"Idempotency-Key": f"{number}-{one}"}
                made = [http.post("/tasks", json={"title": f"Task {number}"}, headers=key) for _ in range(2)]
                assert [answer.status_code for answer in made] == [201, 201]
                assert made[0].content == made[1].content
                many = http.post("/tasks/bulk", json={"tasks": [{"title": "Many"}] * 5}).raise_for_status()
                assert len(many.json()["items"]) == 5
                path = f"/tasks/{made[0].json()['id']}"
                assert http.patch(path, json={"status": "done"}).raise_for_status().json()["version"] == 2
                for query in (
                    "/tasks?count=exact",
                    "/tasks?q=task",
                    "/analytics",
                    "/analytics/timeseries",
                    f"{path}/history",
                ):
                    http.get(query).raise_for_status()
                with exporting:
                    assert len(http.get("/tasks/export").raise_for_status().text.splitlines()) >= 6

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(work, range(AT_ONCE)))
    with psycopg.connect(module_database_url) as db:
        assert db.execute("select count(*) from tasks where title <> 'Listen'").fetchone() == (AT_ONCE * ROUNDS * 6,)
        assert db.execute("select count(*) from task_events where actor_id is null").fetchone() == (0,)
        assert db.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)


def test_subscribers_get_changes_made_through_the_pooler_at_once(server: Server) -> None:
    with logged_in(server) as http:
        token = http.headers["Authorization"].removeprefix("Bearer ")
        address = server.url.replace("http", "ws") + "/ws"
        with connect(address, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
            assert '"ready"' in str(socket.recv(timeout=20))
            task = http.post("/tasks", json={"title": "Listen"}).raise_for_status().json()
            assert f'"task_id":{task["id"]}' in str(socket.recv(timeout=20)).replace(" ", "")


def test_a_pooler_requires_a_direct_url_too(tmp_path: Path) -> None:
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    ended = run(tmp_path, DATABASE_URL=url, DATABASE_POOLER="transaction", SECRET_KEY=SECRET_KEY)
    assert "DATABASE_LISTEN_URL a direct one" in refusal(ended)
