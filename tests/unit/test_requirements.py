"""The locks hold what the bounds in requirements*.txt allow, with hashes; what is installed comes from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCKS = {path.name: path.read_text() for path in sorted(ROOT.glob("requirements*.lock"))}
ENTRY = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?P<marker> ;[^\\\n]+)? \\\n(?: {4}--hash=sha256:[0-9a-f]{64}.*\n)+",
    re.MULTILINE,
)


def bounds(name: str, option: str = "") -> list[Requirement]:
    """Return the requirements of a file, or those of the lines of an option."""
    lines = (ROOT / name).read_text().splitlines()
    chosen = [line.removeprefix(f"#{option} ") for line in lines if line.startswith(f"#{option} ")] if option else lines
    return [Requirement(line) for line in chosen if line and not line.startswith(("#", "-r "))]


def pins(lock: str) -> dict[str, set[str]]:
    """Return the versions of each package in a lock; one that depends on the Python may have several."""
    found: dict[str, set[str]] = {}
    for entry in ENTRY.finditer(LOCKS[lock]):
        found.setdefault(entry["name"], set()).add(entry["version"])
    return found


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", bounds("requirements.txt")),
        ("requirements-embedded.lock", bounds("requirements.txt", "embedded")),
        ("requirements-s3.lock", bounds("requirements.txt", "s3")),
        ("requirements-dev.lock", bounds("requirements-dev.txt")),
    ],
)
def test_a_lock_satisfies_the_bounds(lock: str, wanted: list[Requirement]) -> None:
    locked = pins(lock)

    assert wanted
    assert not [
        f"{requirement}: {locked.get(requirement.name)} (make lock)"
        for requirement in wanted
        if not locked.get(requirement.name)
        or not all(requirement.specifier.contains(version) for version in locked[requirement.name])
    ]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_of_a_lock_has_hashes_and_no_index_is_named(lock: str) -> None:
    left = ENTRY.sub("", LOCKS[lock])

    assert all(re.match(r" *#|$", line) for line in left.splitlines())
    assert "://" not in LOCKS[lock]


@pytest.mark.parametrize("lock", [name for name in LOCKS if name != "requirements-dev.lock"])
def test_the_tests_run_on_what_is_served(lock: str) -> None:
    tested = pins("requirements-dev.lock")

    assert pins(lock).items() <= tested.items()


def test_the_readme_and_the_image_install_the_optional_packages() -> None:
    assert (
        "sed -n 's/^#s3 //p' requirements.txt | .venv/bin/pip install -r /dev/stdin"
        in (ROOT / "docs" / "operations.md").read_text()
    )
    image = (ROOT / "Dockerfile").read_text()
    assert "--require-hashes -r requirements.lock ${WITH_S3:+-r requirements-s3.lock}" in image
    assert "embedded" not in image
