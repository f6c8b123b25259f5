"""The OpenAPI document, compared with the service by Schemathesis, as a user and as an administrator."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.accounts.passwords import Passwords
from service.app import create_app
from tests.conftest import make_settings
from tests.support.factories import PASSWORD, Factory
from tests.support.problems import OPERATIONS
from tests.support.sockets import served

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
WAIT_SECONDS = 300
ACCOUNTS = {"grace": "user", "bob": "user", "root": "admin"}
# Whatever is tried on the accounts that are logged in, they stay as they are.
KEPT = """
create function keep() returns trigger language plpgsql as 'begin return old; end';
create trigger users_keep before update on users for each row when (old.username in ('grace', 'bob', 'root'))
execute function keep();
"""
# What takes a handshake; and what a user may not.
UNREACHED = {"GET /ws"}
ADMINISTRATION = {
    *("GET /users", "GET /users/{user_id}", "PATCH /users/{user_id}"),
    *("GET /admin/queries", "GET /admin/queries/{name}/plan"),
}


@pytest.fixture
async def url(own_database_url: str) -> AsyncIterator[str]:
    """Where the service is, with accounts, a task of each, and one of each that was deleted."""
    app = create_app(make_settings(own_database_url, sql_admin=True), passwords=Passwords(cost=4))
    async with app.router.lifespan_context(app), served(app) as address:
        sql = await asyncpg.connect(own_database_url)
        make = Factory(sql, app)
        owners = [await make.user(username=name, role=role) for name, role in ACCOUNTS.items()]
        gone = [await make.task(owner) for owner in owners]
        for owner in owners:
            await make.task(owner)
        await sql.execute("delete from tasks where id = any ($1)", gone)
        await sql.execute(KEPT)
        await sql.close()
        yield f"http://{address}"


def account(name: str) -> dict[str, Any]:
    """Say in the words of Web Fuzzing Commons how one logs in."""
    fields = {"usernameField": "username", "passwordField": "password"}
    where = {"extractFrom": "body", "extractSelector": "/access_token", "sendIn": "header", "sendName": "Authorization"}
    login = {
        "endpoint": "/auth/login",
        "verb": "POST",
        "contentType": "application/json",
        "payloadUserPwd": {"username": name, "password": PASSWORD, **fields},
        "token": {**where, "sendTemplate": "Bearer {token}"},
    }
    return {"name": name, "loginEndpointAuth": login}


@pytest.mark.parametrize(("name", "unreached"), [("grace", UNREACHED | ADMINISTRATION), ("root", UNREACHED)])
async def test_the_service_keeps_to_its_document(url: str, name: str, unreached: set[str], tmp_path: Path) -> None:
    accounts, report = tmp_path / "accounts.json", tmp_path / "report.json"
    accounts.write_text(json.dumps({"auth": [account(one) for one in ACCOUNTS]}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "--no-color", "run"),
        *("--report", "json", "--report-json-path", str(report), f"{url}/openapi.json"),
        cwd=tmp_path,
        env=os.environ | {"ACCOUNTS": str(accounts), "ACCOUNT": name},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), WAIT_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, "\n".join(line[:500] for line in output.decode().splitlines())
    rates = json.loads(report.read_text())["valid_rates"]
    reached = {label for label, phases in rates.items() if any(phase["accepted"] for phase in phases.values())}
    assert {str(operation) for operation in OPERATIONS} - reached == unreached
