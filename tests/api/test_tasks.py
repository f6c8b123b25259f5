"""One task: create, read, replace, change, delete, and who may."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.factories import Factory, User
from tests.support.problems import problem

WHOLE = {"title": "Prepare Report", "description": "Collect data", "status": "in_progress", "city": "Moscow"}
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ONE_TASK = [("GET", None), ("PUT", {"title": "new"}), ("PATCH", {"title": "new"}), ("DELETE", None)]


async def call(
    user: User | httpx.AsyncClient, method: str, path: str, body: Any = None, **headers: str
) -> httpx.Response:
    client = user.client if isinstance(user, User) else user
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.request(method, path, json=body, headers=names)


# Create and read


async def test_a_created_task_can_be_read_at_its_location(make: Factory) -> None:
    ada = await make.user()
    created = await ada.client.post("/tasks", json={"title": "Prepare Report", "city": "Moscow"})
    assert created.status_code == 201
    assert created.headers["ETag"] == '"1"'
    read = await ada.client.get(created.headers["Location"])
    assert read.json() == created.json()
    assert read.json() | {"id": 0, "created_at": "", "updated_at": ""} == {
        "id": 0,
        "title": "Prepare Report",
        "description": None,
        "status": "todo",
        "city": "Moscow",
        "weather": None,
        "user_id": ada.id,
        "created_at": "",
        "updated_at": "",
        "version": 1,
    }
    assert read.json()["created_at"] == read.json()["updated_at"]
    assert datetime.fromisoformat(read.json()["created_at"]).utcoffset() == timedelta(0)
    assert read.json()["created_at"].endswith("Z")


async def test_a_task_keeps_everything_it_was_made_with(make: Factory) -> None:
    ada = await make.user()
    created = (await ada.client.post("/tasks", json=WHOLE)).json()
    assert {name: created[name] for name in WHOLE} == WHOLE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "x"),
        ("title", "🦊" * 100),
        ("title", " x "),
        ("title", "'; drop table tasks; --"),
        ("description", ""),
        ("description", "é" * 10_000),
        ("description", "line\nline\u2028\x01"),
        ("city", ""),
        ("city", "x" * 100),
        ("status", "done"),
    ],
    ids=lambda value: value[:12],
)
async def test_text_up_to_its_limit_comes_back_as_sent(make: Factory, field: str, value: str) -> None:
    ada = await make.user()
    created = await ada.client.post("/tasks", json={"title": "x", field: value})
    assert created.status_code == 201
    assert (await ada.client.get(created.headers["Location"])).json()[field] == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("title", " \t\n"),
        ("title", "\u00a0\u2003"),
        ("title", "x" * 101),
        ("title", None),
        ("description", "x" * 10_001),
        ("city", "x" * 101),
        ("status", "DONE"),
        ("status", ""),
        ("status", None),
    ],
    ids=lambda value: str(value)[:12],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_value_beyond_its_rules_is_refused_and_nothing_changes(
    make: Factory, method: str, field: str, value: str | None
) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}"
    before = (await ada.client.get("/tasks")).json()
    refused = await call(ada, method, "/tasks" if method == "POST" else path, {"title": "x", field: value})
    problem(refused, 422, pointers={f"/{field}"})
    assert (await ada.client.get("/tasks")).json() == before


@pytest.mark.parametrize("field", ["id", "user_id", "weather", "created_at", "version"])
async def test_fields_that_the_service_sets_cannot_be_sent(make: Factory, field: str) -> None:
    ada = await make.user()
    refused = await ada.client.post("/tasks", json={"title": "x", field: None})
    problem(refused, 422, pointers={f"/{field}"})


async def test_weather_belongs_to_its_city(make: Factory) -> None:
    ada = await make.user()
    weather = {"temperature": 15.5, "condition": "Cloudy"}
    path = f"/tasks/{await make.task(ada, city='Moscow', weather=json.dumps(weather))}"
    assert (await ada.client.get(path)).json()["weather"] == weather
    assert (await call(ada, "PATCH", path, {"city": "Moscow", "title": "same city"})).json()["weather"] == weather
    assert (await call(ada, "PATCH", path, {"city": "Oslo"})).json()["weather"] is None


# Who may


@pytest.mark.parametrize(("method", "body"), [*ONE_TASK, ("POST", {"title": "x"})])
async def test_task_routes_require_a_token(make: Factory, client: httpx.AsyncClient, method: str, body: Any) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}"
    refused = await call(client, method, "/tasks" if method == "POST" else path, body)
    problem(refused, 401)
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert (await ada.client.get(path)).json()["version"] == 1


@pytest.mark.parametrize(("method", "body"), ONE_TASK)
async def test_anothers_task_is_forbidden(make: Factory, method: str, body: Any) -> None:
    ada, bob = await make.user(), await make.user()
    path = f"/tasks/{await make.task(ada)}"
    assert problem(await call(bob, method, path, body), 403)["code"] == "forbidden"
    problem(await call(bob, method, path, body, if_match='"9"', if_none_match="*"), 403)
    assert (await ada.client.get(path)).json()["version"] == 1


@pytest.mark.parametrize(("method", "body"), ONE_TASK)
@pytest.mark.parametrize("role", ["user", "admin"])
async def test_an_owner_and_an_administrator_may(make: Factory, role: str, method: str, body: Any) -> None:
    ada, admin = await make.user(), await make.admin()
    path = f"/tasks/{await make.task(ada)}"
    answer = await call(admin if role == "admin" else ada, method, path, body)
    if method == "DELETE":
        assert (answer.status_code, answer.content) == (204, b"")
        problem(await call(ada, "GET", path), 404)
    else:
        assert (answer.status_code, answer.json()["user_id"]) == (200, ada.id)


@pytest.mark.parametrize(("method", "body"), ONE_TASK)
@pytest.mark.parametrize("task_id", [2**63 - 1, 1])
async def test_a_missing_task_is_not_found_by_anyone(make: Factory, method: str, body: Any, task_id: int) -> None:
    ada, admin = await make.user(), await make.admin()
    gone = await make.task(ada)
    await call(ada, "DELETE", f"/tasks/{gone}")
    path = f"/tasks/{gone if task_id == 1 else task_id}"
    assert problem(await call(ada, method, path, body), 404)["code"] == "not_found"
    problem(await call(admin, method, path, body), 404)


# Replace and change


async def test_put_clears_what_it_is_not_sent(make: Factory) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada, **WHOLE)}"
    replaced = (await call(ada, "PUT", path, {"title": "new"})).json()
    assert {name: replaced[name] for name in WHOLE} == {
        "title": "new",
        "description": None,
        "status": "todo",
        "city": None,
    }
    problem(await call(ada, "PUT", path, {"description": "no title"}), 422, pointers={"/title"})


@pytest.mark.parametrize("change", [{name: value} for name, value in {**WHOLE, "title": "new"}.items()])
async def test_patch_leaves_what_it_is_not_sent(make: Factory, change: dict[str, str]) -> None:
    ada = await make.user()
    old = {"title": "old", "description": "old", "status": "done", "city": "Oslo"}
    path = f"/tasks/{await make.task(ada, **old)}"
    changed = await ada.client.patch(path, json=change, headers={"Content-Type": "application/merge-patch+json"})
    assert {name: changed.json()[name] for name in old} == old | change
    assert (await ada.client.get(path)).json() == changed.json()


async def test_patch_clears_what_is_null(make: Factory) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada, **WHOLE)}"
    changed = (await call(ada, "PATCH", path, {"description": None, "city": None})).json()
    assert {name: changed[name] for name in WHOLE} == WHOLE | {"description": None, "city": None}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_change_moves_version_and_updated_at_on(make: Factory, method: str) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada, created_at=LONG_AGO, updated_at=LONG_AGO)}"
    for version in (2, 3):
        changed = await call(ada, method, path, {"title": f"title {version}"})
        assert changed.headers["ETag"] == f'"{version}"'
        assert changed.json()["version"] == version
        assert changed.json()["updated_at"] > changed.json()["created_at"] == "2020-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("method", "body"), [("PUT", WHOLE), ("PATCH", WHOLE), ("PATCH", {}), ("PATCH", {"city": "Moscow"})]
)
async def test_a_change_that_changes_nothing_moves_nothing(make: Factory, method: str, body: Any) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada, **WHOLE, created_at=LONG_AGO, updated_at=LONG_AGO)}"
    before = await ada.client.get(path)
    same = await call(ada, method, path, body)
    assert same.json() == before.json()
    assert same.headers["ETag"] == before.headers["ETag"] == '"1"'


# Preconditions

WRITES = [("PUT", {"title": "new"}), ("PATCH", {"title": "new"}), ("DELETE", None)]


@pytest.mark.parametrize(("method", "body"), WRITES)
@pytest.mark.parametrize(
    "tags", ['"3"', "*", '"1", "3"', '"1","2" , "3"', 'W/"3", "3"', ' "3" ', '"3",', ', ,"2",, "3" ,']
)
async def test_if_match_with_the_current_version_allows_a_change(
    make: Factory, method: str, body: Any, tags: str
) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada, version=3)}"
    assert (await call(ada, method, path, body, if_match=tags)).is_success


@pytest.mark.parametrize(("method", "body"), WRITES)
@pytest.mark.parametrize(
    "tags", ['"2"', '"1", "2"', 'W/"3"', "3", "garbage", '"', "", '"03"', '"3.0"', '"' + "9" * 40 + '"', '"٣"']
)
async def test_if_match_with_another_version_refuses_a_change(make: Factory, method: str, body: Any, tags: str) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada, version=3)}"
    headers = {b"If-Match": tags.encode()}
    refused = await ada.client.request(method, path, json=body, headers=headers)
    assert problem(refused, 412)["code"] == "stale"
    assert refused.headers["ETag"] == '"3"'
    assert (await ada.client.get(path)).json()["version"] == 3


@pytest.mark.parametrize(("method", "body"), WRITES)
async def test_if_none_match_star_changes_no_task(make: Factory, method: str, body: Any) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada, version=3)}"
    headers = {"If-None-Match": "*", "If-Match": '"3"'}
    refused = await ada.client.request(method, path, json=body, headers=headers)
    assert problem(refused, 412)["code"] == "stale"
    assert refused.headers["ETag"] == '"3"'
    assert (await ada.client.get(path)).json()["version"] == 3
    problem(await ada.client.request(method, "/tasks/4711", json=body, headers=headers), 404)


@pytest.mark.parametrize("tags", ['"3"', 'W/"3"', "*", '"2", "3"', '"2", W/"3"', ',"3",'])
async def test_a_task_with_a_matching_etag_is_not_sent_again(make: Factory, tags: str) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada, version=3)}"
    unchanged = await call(ada, "GET", path, if_none_match=tags)
    assert (unchanged.status_code, unchanged.content, unchanged.headers["ETag"]) == (304, b"", '"3"')
    assert unchanged.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("tags", ['"2"', 'W/"33"', "3", "garbage", "", '"03"', '"*"'])
async def test_a_task_with_another_etag_is_sent(make: Factory, tags: str) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada, version=3)}"
    sent = await call(ada, "GET", path, if_none_match=tags)
    assert (sent.status_code, sent.json()["version"]) == (200, 3)
    assert sent.headers["Cache-Control"] == "private, no-cache"


async def test_exactly_one_of_two_concurrent_guarded_changes_is_made(make: Factory) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}"
    for version in range(1, 16):
        answers = await asyncio.gather(
            *[call(ada, "PATCH", path, {"title": f"{version} by {n}"}, if_match=f'"{version}"') for n in range(3)]
        )
        assert sorted(answer.status_code for answer in answers) == [200, 412, 412]
        assert {answer.headers["ETag"] for answer in answers} == {f'"{version + 1}"'}
        winner = next(answer for answer in answers if answer.status_code == 200)
        assert (await ada.client.get(path)).json() == winner.json()


async def test_unguarded_changes_of_different_fields_at_once_are_all_kept(make: Factory) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}"
    await asyncio.gather(*[call(ada, "PATCH", path, {name: value}) for name, value in WHOLE.items()])
    task = (await ada.client.get(path)).json()
    assert {name: task[name] for name in WHOLE} == WHOLE
    assert task["version"] == 1 + len(WHOLE)


async def test_one_of_a_concurrent_guarded_deletion_and_change_wins(make: Factory) -> None:
    ada = await make.user()
    for _ in range(5):
        path = f"/tasks/{await make.task(ada)}"
        changed, deleted = await asyncio.gather(
            call(ada, "PATCH", path, {"title": "new"}, if_match='"1"'), call(ada, "DELETE", path, if_match='"1"')
        )
        assert (changed.status_code, deleted.status_code) in {(200, 412), (404, 204)}


async def test_a_change_outside_the_api_increments_the_version(
    make: Factory, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    ada = await make.user()
    task_id = await make.task(ada)
    await sql.execute("update tasks set title = 'by hand' where id = $1", task_id)
    problem(await call(ada, "PUT", f"/tasks/{task_id}", {"title": "x"}, if_match='"1"'), 412)


@pytest.mark.parametrize(
    "header", ['x"1"y', 'w/"1"', 'W/ "1"', '"1', "1", '"1";', '"1" "1"', "", "*,*", ",", '"1",*', '"1",,1']
)
async def test_a_malformed_list_of_etags_matches_nothing(make: Factory, header: str) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}"
    assert (await ada.client.patch(path, json={"status": "done"}, headers={"If-Match": header})).status_code == 412
    assert (await ada.client.get(path, headers={"If-None-Match": header})).status_code == 200


async def test_a_list_of_tags_may_stand_in_several_lines(make: Factory) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}"
    lines = [("If-Match", '"7"'), ("If-Match", '"8" , "1"')]
    assert (await ada.client.patch(path, json={"status": "done"}, headers=lines)).status_code == 200


@pytest.mark.parametrize("number", ["1.0", "+1", "1_0", " 1", "%2B1", "1e0", "\u0661"])
async def test_a_number_is_written_with_digits_alone(make: Factory, number: str) -> None:
    ada = await make.user()
    assert (await ada.client.get(f"/tasks/{number}")).status_code == 422
    assert (await ada.client.get(f"/tasks?limit={number}")).status_code == 422
