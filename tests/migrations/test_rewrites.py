"""Migrations that rewrite rows: the rows and their new values."""

from __future__ import annotations

from typing import Any

import psycopg

from service.db import migrations

KEPT = """
    select t.title, t.words @@ words_sought(t.title), t.version, t.xmin::text
    from tasks as t order by t.id
"""


def kept(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(KEPT.encode()).fetchall()


def test_search_words_are_rewritten_only_for_titles_with_markup(empty_database_url: str) -> None:
    migrations.migrate(empty_database_url, to="0018.search_addresses")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("insert into users (username, password_hash) values ('ada', '!')")
        connection.execute("""
            insert into tasks (id, user_id, title) overriding system value
            select n, u.id, 'Task ' || abs(n)
            from users as u, generate_series(-12000, 12000, 3) as n
        """)
        for number in (-12_000, 0, 12_000):
            connection.execute("update tasks set title = 'A List<String>' where id = %s", [number])
        connection.execute("delete from task_events")
    before = kept(empty_database_url)
    migrations.migrate(empty_database_url, to="0019.search_marks")
    after = kept(empty_database_url)
    assert [(row[0], row[2]) for row in after] == [(row[0], row[2]) for row in before]
    assert [row[0] for row in before if not row[1]] == ["A List<String>"] * 3
    assert [row[0] for row in after if not row[1]] == []
    changed = [new[0] for old, new in zip(before, after, strict=True) if old[3] != new[3]]
    assert changed == ["A List<String>"] * 3
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("select count(*) from task_events").fetchone() == (0,)
    migrations.rollback(empty_database_url, count=1)
    assert [row[1:3] for row in kept(empty_database_url)] == [row[1:3] for row in before]


def test_words_of_existing_tasks_move_to_their_own_table_without_an_event(empty_database_url: str) -> None:
    migrations.migrate(empty_database_url, to="0022.key_use")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("insert into users (username, password_hash) values ('ada', '!')")
        connection.execute("""
            insert into tasks (id, user_id, title) overriding system value
            select n, u.id, 'Reports ' || abs(n) from users as u, generate_series(-12000, 12000, 3) as n
        """)
        connection.execute("delete from task_events")
    before = kept(empty_database_url)
    migrations.migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        found = connection.execute("""
            select count(*) from task_search as s join tasks as t on s.task_id = t.id
            where s.words @@ words_sought(t.title) and s.words @@ words_sought('report')
                and (s.user_id, s.created_at, s.title) = (t.user_id, t.created_at, t.title)
        """)
        assert found.fetchone() == (len(before),)
        assert connection.execute("select count(*) from task_events").fetchone() == (0,)
    # The statements of before read `t.words`, which a function now is.
    assert [row[:3] for row in kept(empty_database_url)] == [row[:3] for row in before]
