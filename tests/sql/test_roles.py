"""The roles of sql/dba/roles.sql have their rights on tables that a later migration creates, and the reader none."""

from __future__ import annotations

import psycopg

from service.db.statements import FOLDER

SCRIPT = (FOLDER / "dba" / "roles.sql").read_text(encoding="utf-8")
RIGHTS = """
select r.name, has_table_privilege(r.name, 'later', 'select'), has_table_privilege(r.name, 'later', 'insert')
from unnest(array['tasks_owner', 'tasks_app', 'tasks_reader']) as r (name)
"""


def test_a_later_table_is_the_applications_at_once_and_the_readers_after_the_script(own_database_url: str) -> None:
    with psycopg.connect(own_database_url, autocommit=True) as connection:
        connection.execute(SCRIPT.encode())
        connection.execute("set role tasks_owner; create table later (secret text); reset role")
        rights = {name: tuple(rest) for name, *rest in connection.execute(RIGHTS).fetchall()}
        assert rights == {"tasks_owner": (True, True), "tasks_app": (True, True), "tasks_reader": (False, False)}
        connection.execute(SCRIPT.encode())
        assert connection.execute("select has_table_privilege('tasks_reader', 'later', 'select')").fetchone() == (True,)
        reader = connection.execute("select has_column_privilege('tasks_reader', 'users', 'password_hash', 'select')")
        assert reader.fetchone() == (False,)
