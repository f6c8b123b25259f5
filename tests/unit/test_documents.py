"""README.md, the documents and the SQL guides agree with the code, each other and the style."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.api.problems import PROBLEM_TYPES
from service.app import create_app
from service.core import close_codes
from service.core.settings import Settings
from tests.conftest import SECRET_KEY
from tests.unit.test_style import PHRASES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "sql/README.md",
    "sql/TUNING.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
PARAMETER = re.compile(r"\{\w+\}")
OPERATORS_ROUTES = {
    f"GET {path}" for path in ("/healthz", "/readyz", "/metrics", "/admin/queries", "/admin/queries/{}/plan")
}
UVICORNS_CLOSE_CODES = {1009, 1011, 1012}


def text_of(document: str) -> str:
    """Return a document."""
    return (ROOT / document).read_text(encoding="utf-8")


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub makes for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_or_a_heading(document: str) -> None:
    for target, anchor in LINK.findall(text_of(document)):
        linked = ROOT.joinpath(document).parent / target if target else ROOT / document
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(anchor_of, headings), f"{target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_prose_keeps_to_the_glossary(document: str) -> None:
    assert PHRASES.findall(CODE.sub("", text_of(document))) == []


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 150


def test_every_error_code_is_in_the_table_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text_of("docs/api.md"), re.MULTILINE)

    assert rows == [(str(problem.status), code) for code, problem in PROBLEM_TYPES.items()]


def test_every_close_code_is_in_the_table() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d{4}) \|", text_of("docs/events.md"), re.MULTILINE)}

    assert codes == {value for value in vars(close_codes).values() if isinstance(value, int)} | UVICORNS_CLOSE_CODES


def test_every_route_for_clients_is_in_a_document() -> None:
    described = PARAMETER.sub("{}", text_of("docs/api.md") + text_of("docs/events.md"))
    routes = create_app(Settings(secret_key=SecretStr(SECRET_KEY), sql_admin=True)).openapi()["paths"]
    names = {f"{method.upper()} {PARAMETER.sub('{}', path)}" for path, methods in routes.items() for method in methods}

    assert {name for name in names if f"`{name}`" not in described} == OPERATORS_ROUTES | {"GET /ws"}
    assert "| `/ws` |" in described
