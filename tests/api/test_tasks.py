"""One task: create, read, replace, change, delete, and who may."""

from __future__ import annotations

from tests.factories import Factory


async def test_a_created_task_can_be_read_where_its_location_says(make: Factory) -> None:
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
