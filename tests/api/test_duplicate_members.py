"""A member or field that occurs twice is refused with its pointer; so is a title that shows nothing."""

from __future__ import annotations

import httpx
import pytest

from tests.support.factories import PASSWORD, Factory
from tests.support.problems import problem

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("/tasks", '{"title": "a", "title": "b"}', {"/title"}),
        ("/tasks", '{"title": "a", "\\u0074itle": "b"}', {"/title"}),
        ("/tasks", '{"title": "a", "city": null, "city": null, "title": "a"}', {"/city", "/title"}),
        (
            "/tasks/bulk",
            '{"tasks": [{"title": "a"}, {"title": "b", "status": "todo", "status": "done"}]}',
            {"/tasks/1/status"},
        ),
        ("/tasks/bulk", '{"tasks": [{"title": "a"}], "tasks": []}', {"/tasks"}),
        ("/auth/keys", '{"name": "a", "read_only": true, "read_only": false}', {"/read_only"}),
        ("/tasks", '{"title": "a", "x": {"y": [{"z": 1, "z": 2}]}}', {"/x/y/0/z"}),
    ],
)
async def test_a_member_that_occurs_twice_is_refused(make: Factory, path: str, body: str, pointers: set[str]) -> None:
    ada = await make.user()
    answer = await ada.client.post(path, content=body, headers=JSON)
    problem(answer, 422, pointers=pointers)
    assert {one["message"] for one in answer.json()["errors"]} == {"Name occurs twice"}
    assert await make.sql.fetchval("select count(*) from tasks") == 0


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_change_with_a_member_that_occurs_twice_changes_nothing(make: Factory, method: str) -> None:
    ada = await make.user()
    task = await make.task(ada, title="before")
    answer = await ada.client.request(method, f"/tasks/{task}", content='{"title": "a", "title": "b"}', headers=JSON)
    problem(answer, 422, pointers={"/title"})
    assert await make.sql.fetchval("select title from tasks") == "before"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", '{{"username": "{0}", "password": "x", "password": "{1}"}}'),
        ("application/x-www-form-urlencoded", "username={0}&password=x&password={1}"),
    ],
)
async def test_a_log_in_with_two_passwords_is_refused(
    make: Factory, client: httpx.AsyncClient, content_type: str, body: str
) -> None:
    ada = await make.user()
    text = body.format(ada.username, PASSWORD.replace(" ", "+" if "form" in content_type else " "))
    answer = await client.post("/auth/login", content=text, headers={"Content-Type": content_type})
    problem(answer, 422, pointers={"/password"})


async def test_same_names_in_different_objects_are_no_duplicates(make: Factory) -> None:
    ada = await make.user()
    assert (await ada.client.post("/tasks/bulk", json={"tasks": [{"title": "a"}, {"title": "a"}]})).status_code == 201


@pytest.mark.parametrize(
    "title",
    ["\u200b", "\u200b \u200d", "\u202e\u202c", "\ufeff", "\u3164", "\u2800", "\u00ad", "\u2066\u2069", "\u034f\ufe0f"],
)
async def test_a_title_that_shows_nothing_is_refused(make: Factory, title: str) -> None:
    ada = await make.user()
    problem(await ada.client.post("/tasks", json={"title": title}), 422, pointers={"/title"})
    assert (await ada.client.post("/tasks", json={"title": f"{title}x"})).status_code == 201
