"""The names and docstrings of the service and of its tests keep to the glossary."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(module for folder in ("service", "tests") for module in (ROOT / folder).rglob("*.py"))
NAME_PARTS = frozenset(
    {"away", "behind", "ear", "ears", "envelope", "farewell", "feed", "figures", "give", "given", "gives", "grace"}
    | {"known", "largest", "living", "longest", "look", "looks", "most", "patience", "room", "rooms", "said", "settle"}
    | {"settled", "spent", "turn", "turns", "unsettled", "whoever", "wire"}
)
# Names of libraries, which tests cannot choose.
LIBRARY_NAMES = {"given": "hypothesis", "feed_data": "websockets", "feed_eof": "websockets"}
PHRASES = re.compile(
    r"\b(rooms?|gives?|given|turns?|looks?|ears?|living|spent|behind|away|settles?|settled|patience|farewell|whoever|anew"
    r"|carr(y|ies|ied) out|br(ing|ings|ought) back|takes? back|taken back|put right|(hold|holds|held|holding) against"
    r"|past the API|wire|feeds?|envelopes?|figures)\b",
    re.IGNORECASE,
)


def parts(name: str) -> set[str]:
    """Return the words of an identifier, in lower case."""
    return {part.lower() for part in re.split(r"_|(?<=[a-z0-9])(?=[A-Z])", name)}


def names(source: str) -> Iterator[tuple[int, str]]:
    """Yield every identifier with its line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield every docstring, of attributes too, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def allowed(module: Path, source: str) -> frozenset[str]:
    """Return the banned names that a module of the tests may use."""
    if "tests" not in module.relative_to(ROOT).parts:
        return frozenset()
    return frozenset(name for name, library in LIBRARY_NAMES.items() if f"\nfrom {library}" in source)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_names_and_docstrings_keep_to_the_glossary(module: Path) -> None:
    source = module.read_text(encoding="utf-8")
    exceptions = allowed(module, source)
    found = [f"{line}: {name}" for line, name in names(source) if parts(name) & NAME_PARTS and name not in exceptions]
    found += [f"{line}: {match[0]!r}" for line, text in docstrings(source) if (match := PHRASES.search(text))]
    assert not found


@pytest.mark.parametrize(
    ("name", "is_banned"), [("MOST_KEYS", True), ("isGiven", True), ("almost", False), ("known_hash", True)]
)
def test_a_banned_word_is_found_in_a_name(name: str, is_banned: bool) -> None:
    assert bool(parts(name) & NAME_PARTS) is is_banned
