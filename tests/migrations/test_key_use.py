"""API keys that were there before `last_used_at`: they stay as they are, there and back."""

from __future__ import annotations

from typing import Any

import psycopg

from service.db import migrations

KEY = "select k.id, k.user_id, k.name, k.hash, k.read_only, k.created_at, k.expires_at from api_keys as k"
USED = "update api_keys set last_used_at = now()"


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def told(url: str, statement: str) -> int:
    """Return how many notifications of the channel `accounts` a statement causes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("listen accounts")
        connection.execute(statement.encode())
        return len(list(connection.notifies(timeout=0, stop_after=None)))


def test_keys_stay_as_they_are(empty_database_url: str) -> None:
    url = empty_database_url
    migrations.migrate(url, to="0020.event_completion")
    rows(url, "insert into users (username, password_hash) values ('ada', '!')")
    rows(url, "insert into api_keys (user_id, name, hash) select u.id, 'old', 'hash' from users as u")
    before = rows(url, KEY)
    migrations.migrate(url, to="0022.key_use")
    assert rows(url, KEY) == before
    assert rows(url, "select k.name, k.last_used_at from api_key_view as k") == [("old", None)]
    assert told(url, USED) == 0
    assert told(url, "update api_keys set read_only = true") == 1
    assert told(url, f"{USED}, expires_at = now() + interval '1 day'") == 1
    rows(url, "update api_keys set read_only = false, expires_at = null")
    migrations.rollback(url, count=1)
    assert rows(url, KEY) == before
    assert told(url, "update api_keys set name = 'new'") == 1
    assert told(url, "delete from api_keys") == 1
