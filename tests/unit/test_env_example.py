"""`docs/configuration.md`, `.env.example` and `docker-compose.yml` name the service's settings, all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.cli import settings
from service.core.settings import EXAMPLE_SECRET_KEY, Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = dict(re.findall(r"^#([A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
NAMES = {name.upper() for name in Settings.model_fields}
SET_BY_COMPOSE = {"DATABASE_URL", "HOST", "LOG_FILE"}  # in the volume of secrets, and in the image


def test_the_files_that_are_checked_in_are_current() -> None:
    assert settings.DOCUMENT.read_text(encoding="utf-8") == settings.document(), (
        "run `python -m service settings --write`"
    )
    assert settings.EXAMPLE.read_text(encoding="utf-8") == settings.example(), (
        "run `python -m service settings --write`"
    )


def test_the_example_names_every_setting_and_nothing_else() -> None:
    assert set(EXAMPLE) == NAMES


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    shown = {name: value for name, value in EXAMPLE.items() if name != "SECRET_KEY"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in shown.items()))

    assert Settings(_env_file=tmp_path / ".env") == Settings(_env_file=None)  # type: ignore[call-arg]


def test_the_examples_secret_key_is_refused() -> None:
    assert EXAMPLE["SECRET_KEY"].startswith(EXAMPLE_SECRET_KEY)
    with pytest.raises(ValidationError, match="the example's value"):
        Settings(_env_file=None, secret_key=EXAMPLE["SECRET_KEY"])  # type: ignore[call-arg]


def test_every_line_of_the_example_is_a_comment() -> None:
    assert not [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]


def test_compose_hands_every_setting_on() -> None:
    (api,) = re.findall(r"^  api:\n(?:(?:    .*)?\n)+", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)

    assert set(re.findall(r"^      ([A-Z0-9_]+):", api, re.MULTILINE)) & NAMES == NAMES - SET_BY_COMPOSE
