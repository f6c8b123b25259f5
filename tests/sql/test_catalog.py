"""`sql catalog`: the file that is checked in, and what it says."""

from __future__ import annotations

import re
from typing import TypeAlias

import asyncpg

from service.db.statements import FOLDER, read_all
from service.dba import catalog

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def test_the_catalogue_that_is_checked_in_is_current(sql: Session) -> None:
    text = catalog.markdown(await catalog.entries(sql))
    assert catalog.FILE.read_text(encoding="utf-8") == text, "run `python -m service sql catalog --write`"


async def test_every_statement_is_there_and_every_link_leads_somewhere(sql: Session) -> None:
    text = catalog.markdown(await catalog.entries(sql))
    sections = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert sections == [one.name for one in read_all()]
    anchors = {name.replace(".", "") for name in sections}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    assert all((FOLDER / link).exists() for link in links if not link.startswith("#"))


async def test_an_entry_lists_the_parameters_columns_and_tables_of_a_statement(sql: Session) -> None:
    described = {one["name"]: one for one in (entry.as_dict() for entry in await catalog.entries(sql))}
    history = described["tasks.history"]
    assert history["file"] == "sql/tasks/history.sql"
    assert history["params"][3] == {"name": "before_id", "type": "bigint", "nullable": True}
    assert {"name": "changes", "type": "json", "nullable": True} in history["columns"]
    assert {"name": "is_event", "type": "boolean", "nullable": False} in history["columns"]
    assert history["reads"] == ["task_events", "tasks"]
    assert history["index"] == ["tasks_pkey", "task_events_task_idx", "task_events_pkey"]
    assert history["run_by"] == ["GET /tasks/{task_id}/history"]
    assert described["tasks.update"]["writes"] == ["tasks"]
    assert described["tasks.update"]["raises"]["tasks_title_check"] == "invalid"
    assert described["tasks.list"]["sorts"][:2] == ["-created_at", "created_at"]
