"""Which route runs which statement, as the catalogue says and as requests show."""

from __future__ import annotations

import pytest

from service.dba.callers import EVERY_REQUEST, callers, entry_points
from tests.support.factories import Factory
from tests.support.problems import OPERATIONS

COMMANDS = {
    "serve",
    "migrate",
    "create-admin",
    "demo",
    "openapi",
    "settings",
    "sql check",
    "sql catalog",
    "sql explain",
    "sql plans",
    "sql top",
}


def statements_of(route: str) -> set[str]:
    return {name for name, by in callers().items() if route in by}


def test_every_route_and_command_is_found() -> None:
    assert entry_points() == {*map(str, OPERATIONS), *COMMANDS, EVERY_REQUEST}


# What each list's request needs, and what makes it take each of its ways.
@pytest.mark.parametrize(
    ("path", "queries"),
    [
        (
            "/tasks",
            [
                "",
                "?q=x&count=estimated",
                "?q=x&count=exact",
                "?sort=title&start_date=2026-01-01",
                "?sort=id&start_date=2026-01-01",
                "?sort=id&user_id=1",
                "?offset=1",
                "?count=exact",
                "?count=estimated",
            ],
        ),
        ("/analytics/timeseries", [""]),
        ("/analytics", [""]),
        ("/events", ["", "?since=x"]),
        ("/users", [""]),
        ("/auth/me", [""]),
        ("/readyz", [""]),
    ],
)
async def test_a_route_runs_what_the_catalogue_says_and_nothing_else(
    make: Factory, seen: dict[str, set[str]], path: str, queries: list[str]
) -> None:
    ada = await make.admin()
    await make.task(ada)
    for query in queries:
        assert (await ada.client.get(path + query)).status_code == 200
    by_ticket = {"accounts.use_ticket"}  # asked with a token here
    always = statements_of(EVERY_REQUEST)
    assert seen[f"GET {path}"] - always == statements_of(f"GET {path}") - always - by_ticket


def test_the_catalogue_lists_background_statements_under_serve() -> None:
    assert statements_of("serve") >= {
        "events.expire",
        "events.repair_future_xids",
        "weather.claim",
        "accounts.create_first_admin",
    }
    assert statements_of("create-admin") == {"accounts.create"}
    assert statements_of("demo") == {"accounts.create", "demo.is_empty", "demo.create_tasks"}
    assert statements_of("openapi") == statements_of("migrate") == set()
