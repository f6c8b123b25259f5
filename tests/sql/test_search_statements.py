"""What a search finds: words as they are and as English stems, among all tasks and with every filter."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any, TypeAlias, get_args

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.core.viewer import Viewer
from service.db.pool import Database
from service.db.queries import q
from service.tasks import listing, schemas
from tests.sql.test_lists_statements import DAY, all_tasks, found, questions
from tests.support.factories import Factory, User

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
EVERYTHING: dict[str, Any] = {
    **dict.fromkeys(("user_id", "status", "city", "created_from", "created_before", "after_value", "after_id")),
    "row_limit": 100,
    "row_offset": 0,
}
PAGE = ("after_value", "after_id", "row_limit", "row_offset")
WORDS = ["report", "reports", "отчёт", "the", "日本語"]


async def finds(database: Database, owner: User, sought: str) -> int:
    values: dict[str, Any] = {"viewer_id": owner.id, "viewer_is_admin": False, "sought": sought, **EVERYTHING}
    rows = await listing.fetch_rows(database, sort="id", **values)
    assert await q.tasks.count_search(database, **filters_of(values)) == len(rows)
    return len(rows)


def filters_of(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in PAGE}


@pytest.mark.parametrize(
    ("text", "sought", "is_found"),
    [
        ("Monthly report", "reports", True),
        ("Monthly reports", "REPORT", True),
        ("Monthly report", "quarterly report", False),
        ("Monthly|the figures", "monthly figure", True),
        ("Monthly report", "quarterly or report", True),
        ("Monthly report", '"monthly reports"', True),
        ("Report monthly", '"monthly report"', False),
        ("Monthly report", "report -monthly", False),
        ("Monthly report", "report -months", False),
        ("Quarterly report", "report -monthly", True),
        ("Quarterly report", "-monthly", True),
        ("Отчёт за месяц", "отчёт", True),
        ("Отчёт за МЕСЯЦ", "Месяц", True),
        ("Café", "cafe\u0301", True),
        ("Cafe\u0301", "CAFÉ", True),
        ("Ｒｅｐｏｒｔ", "report", True),  # noqa: RUF001
        ("日本語 タスク", "タスク", True),
        ("नमस्ते दुनिया", "दुनिया", True),
        ("The Who", "the who", True),
        ("Who", "the who", False),
        ("The Who", "who plays", False),
        ("Play", "who plays", True),
        ("foo-bar", "bar", True),
        ("Option verbose", "--verbose", True),
        ("See http://host.example/a/b?c=1", "http://host.example/a/b?c=1", True),
        ("See http://host.example/a/b", "https://host.example/a/b", True),
        ("See host.example/a/b", "report -http://host.example/a/b", False),
        ("Report", "report -http://host.example/a/b", True),
        ("See http://host.example/a", "http://host.example/b", False),
        ("See host.example:8000/a", "host.example", True),
        ("Run ./bin/start.sh", "start.sh", True),
        ("Run ./bin/start.sh", "./bin/start.sh", True),
        ("Run bin/stop.sh", "run -bin/start.sh", True),
        ("Run bin/start.sh", "run -bin/start.sh", False),
        ("client/server", "server", True),
        ("Fix <urgent>", "urgent", True),
        ("List<String>", "list<string>", True),
        ("a <b and c> d", "b c", True),
        ("R&D", "r&d", True),
        ("D&R", "r&d", False),
        ("R&amp;D", "R&amp;D", True),
        ("caf&eacute;", "caf&eacute;", True),
        ("ｃａｆ＆ｅａｃｕｔｅ；", "caf&eacute;", True),  # noqa: RUF001
        ("Monthly", " ".join(["\t\u3000Monthly"] * 32 + ["report"]), True),
        ("Monthly", " ".join(["monthly"] * 31 + ["report"]), False),
        ("Monthly", "/".join(["monthly"] * 31 + ["report"]) + " report", False),
        ("x", "x" + "-x" * 40, False),
        ("x|" + "https://host.example/a " * 20, "https://host.example/a " * 20, True),
        ("x|host.example", "host.example " * 15 + "x host.invalid", True),
        ("x|host.example", "host.example " * 15 + "host.invalid x", False),
        ("Work #wip", "work -#wip", False),
        ("Work #done", "work -#wip", True),
        ("Work @bob", "work -@bob", False),
        ("Work (later)", "work -(later)", False),
        ("Run /tmp/a.sh", "run -/tmp/a.sh", False),
        ("Run .env", "run -.env", False),
        ("Pages 10--20", "pages 10--20", True),
        ("git log --5", "git log --5", True),
        ("Deploy v1.2- done", "deploy v1.2- done", True),
        ("cd .. now", "cd .. now", True),
        ("see..here", '"see..here"', True),
        ("JIRA-123 fix login", "123", True),
        ("JIRA-123 fix login", "jira 123", True),
        ("JIRA-123 fix login", 'fix -"JIRA 123"', False),
        ("JIRA-123 fix login", "jira-124", False),
        ("Send report.pdf", "reports", True),
        ("Mail bob@corp.example", "corp.example", True),
        ("Release v2.0-beta", "v2.0", True),
        ("-5 degrees", "5 degrees", True),
        ("a\x01b \x01c", "a\x01b \x01c", True),
        ("-5 degrees", '"-5"', True),
        ("2026-01-15 review", "2026-01", True),
        ("x", "", False),
        ("x", " \t\n", False),
        ("x", "!!! 🦊 ---", False),
        ("x", "x ' | & ! :* <-> \\ ( )", True),
    ],
)
async def test_words_find_what_has_them(
    database: Database, make: Factory, text: str, sought: str, is_found: bool
) -> None:
    ada = await make.user()
    title, _, description = text.partition("|")
    await make.task(ada, title=title, description=description)
    assert await finds(database, ada, sought) == is_found


async def test_a_search_follows_every_change(database: Database, make: Factory) -> None:
    ada = await make.user()
    await make.task(ada, title="First")
    for change in ("title = 'Second'", "description = 'Third'", "status = 'done'"):
        await make.sql.execute(f"update tasks set {change}")
    assert [await finds(database, ada, word) for word in ("first", "second", "thirds")] == [0, 1, 1]


async def test_a_row_of_words_is_written_only_with_title_or_description(sql: Session, make: Factory) -> None:
    await make.task(await make.user(), title="First")
    written = "select ctid::text || xmin::text from task_search"
    before = await sql.fetchval(written)
    for change in ("status = 'done'", "city = 'Oslo'", "weather_due_at = now()", "title = title"):
        await sql.execute(f"update tasks set {change}")
        assert await sql.fetchval(written) == before
    await sql.execute("update tasks set description = 'Third'")
    assert await sql.fetchval(written) != before
    await sql.execute("delete from tasks")
    assert await sql.fetchval("select count(*) from task_search") == 0


async def test_a_search_follows_a_change_of_owner_and_of_creation(
    database: Database, make: Factory, sql: Session
) -> None:
    ada, bob = await make.user(), await make.user()
    await make.task(ada, title="First", created_at=DAY)
    written = "select s.user_id = $1 and s.created_at = t.created_at from task_search as s, tasks as t"
    for owner, change in ((bob, f"user_id = {bob.id}"), (bob, "created_at = now()"), (ada, f"user_id = {ada.id}")):
        await sql.execute(f"update tasks set {change}")
        assert [await finds(database, user, "first") for user in (ada, bob)] == [owner is ada, owner is bob]
        assert await sql.fetchval(written, owner.id)


async def test_a_search_reads_no_index_of_words_once_a_walk_has_passed_all(database: Database, make: Factory) -> None:
    ada = await make.user()
    for title in ("First", "Second"):
        await make.task(ada, title=title)
    values: dict[str, Any] = {**EVERYTHING, "viewer_id": ada.id, "viewer_is_admin": False, "sought": "second"}
    values["within_period"] = True
    walk = {**values, **listing.NO_BOUNDS}
    for walk_limit, walked, sought in ((1, 0, 1), (2, 1, 1), (3, 1, 0)):
        assert len(await q.tasks.search_walk(database, sort="id", **walk, walk_limit=walk_limit)) == walked
        assert len(await q.tasks.search(database, sort="id", **values, walk_limit=walk_limit)) == sought


@pytest.mark.parametrize(
    "text", ["-" * 10_000, "- " * 5000, '-"" ' * 2500, "<-" * 5000, "a@" * 5000, "ﷺ" * 10_000, "x" * 10_000]
)
async def test_text_that_strains_the_parser_is_a_valid_search(database: Database, make: Factory, text: str) -> None:
    await finds(database, await make.user(), text)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    title=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=99),
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    | st.text(" \u3000\"-!&|()<>:*\\'/@.,aZ1éЯ日\u0301", max_size=300),
)
async def test_any_text_is_a_valid_search(sql: Session, title: str, text: str) -> None:
    assert await sql.fetchval("select search_words($1, $2) @@ words_sought($2)", title, text) in {True, False}


# Each is in what PostgreSQL's parser of texts takes for one word: tags, entities, addresses, paths, numbers.
# No single hyphen begins one, as it would negate.
ATOMS = [
    *" \n!&|()<>:*\\'/@.,;%?#=+~$^{}[]_`aZ1",
    "..",
    "--",
    "a-b",
    "1- ",
    "v1.2- ",
    "e-5",
    "\x01",
    "the",
    "é",
    "Я",
    "日本",
    "\u0301",
    "™",
    "½",
    "1.5",
    "x.com",
    "http://",
    "&amp;",
    "</b>",
]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(atoms=st.lists(st.sampled_from(ATOMS), max_size=16))
async def test_a_title_is_found_by_itself(sql: Session, atoms: list[str]) -> None:
    sought = "select numnode(words_sought($1)) = 0 or search_words($1, null) @@ words_sought($1)"
    assert await sql.fetchval(sought, "".join(atoms))


# Of the release before: each word as it is, and as its English stem.
TWO_PASSES = """
    with old as (
        select
            to_tsvector('pg_catalog.english', p.text) || tsvector ''' '':100'
                || to_tsvector('pg_catalog.simple', p.text) as words,
            websearch_to_tsquery('pg_catalog.english', p.query) as stems,
            websearch_to_tsquery('pg_catalog.simple', p.query) as plain
        from (select plain_words($1) as text, plain_words($2) as query) as p
    )
    select
        old.words @@ case when numnode(old.stems) > 0 then old.stems else old.plain end as was_found,
        search_words($1, null) @@ words_sought($2) as is_found
    from old
"""
STEMS = ["report", "connect", "the", "be", "hav", "univers", "easi", "отчёт", "日本", "v2", "non-profit"]
ENDINGS = ["", "s", "ed", "ing", "ion", "ity", "ness", "ational"]
FORMS = st.builds(str.__add__, st.sampled_from(STEMS), st.sampled_from(ENDINGS))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), text=st.lists(FORMS, min_size=1, max_size=6))
async def test_a_text_is_found_by_its_words_as_by_two_passes(
    sql: Session, data: st.DataObject, text: list[str]
) -> None:
    first = data.draw(st.integers(0, len(text) - 1))
    last = data.draw(st.integers(first + 1, len(text)))
    sought = " ".join(text[first:last])
    for query in (sought, f'"{sought}"'):
        row = await sql.fetchrow(TWO_PASSES, " ".join(text), query)
        assert row is not None
        assert row["is_found"] or not row["was_found"], query


async def test_the_search_column_causes_no_change_and_is_not_sent(sql: Session, make: Factory) -> None:
    await make.task(await make.user(), title="Report", description="monthly")
    await sql.execute("update tasks set title = title; update tasks set title = 'Other'")
    events = await sql.fetch("select type, changes::text, task::text from task_events order by id")
    assert [event["type"] for event in events] == ["task.created", "task.updated"]
    assert not [event for event in events if "words" in (event["changes"] or "") + event["task"]]
    assert await sql.fetchval("select version from tasks") == 2
    assert "words" not in dict(await sql.fetchrow("select * from task_view") or {})


# The walk passes all, as these tasks are few; some, so that its pages are short; none.
@pytest.mark.parametrize("walk_limit", [10_000, 40, 0])
@pytest.mark.parametrize("number", [12, 300])
async def test_a_search_returns_what_python_finds_among_all_tasks(
    database: Database, make: Factory, monkeypatch: pytest.MonkeyPatch, number: int, walk_limit: int
) -> None:
    for name, value in (("PAGES_WALKED", 0), ("SHORT_WALK", walk_limit), ("LONG_WALK", walk_limit)):
        monkeypatch.setattr(listing, name, value)
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    chance = random.Random(number)
    for _ in range(number):
        await make.task(
            chance.choice([ada, ada, bob]),
            title=" ".join(chance.sample(WORDS, 2)),
            description=chance.choice([None, chance.choice(WORDS)]),
            status=chance.choice(["todo", "in_progress", "done"]),
            city=chance.choice([None, "Oslo", "Rome"]),
            created_at=DAY + timedelta(hours=6 * chance.randrange(32)),
            updated_at=DAY + timedelta(hours=6 * chance.randrange(32)),
        )
    await make.sql.execute("analyze tasks, task_search")
    rows = await all_tasks(make)
    viewers: list[Viewer] = [root.viewer, bob.viewer, ada.viewer]
    for viewer, sort, values in questions(rows, viewers, list(get_args(schemas.Sort)), number=250):
        word = chance.choice(WORDS)
        wanted = {"report", "reports"} if "report" in word else {word}
        having = [row for row in rows if wanted & set(f"{row['title']} {row['description']}".split())]
        after = [row for row in rows if row["id"] == values["after_id"]]
        arguments = {"viewer_id": viewer.id, "viewer_is_admin": viewer.is_admin, "sought": word, **values}
        page = [row["id"] for row in await listing.fetch_rows(database, sort=sort, **arguments)]
        whole = found([*having, *(row for row in after if row not in having)], viewer, sort, values)
        assert page == whole, (sort, values)
        every = {**values, "after_id": None, "row_limit": number, "row_offset": 0}
        total = await listing.count_rows(database, filters_of(arguments))
        assert total == len(found(having, viewer, sort, every)), values
