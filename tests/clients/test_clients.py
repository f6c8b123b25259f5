"""Clients generated from the served /openapi.json, each of which works with the service."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex

import pytest

from service.accounts.passwords import Passwords
from service.app import create_app
from tests.conftest import make_settings
from tests.support.sockets import served

FOLDER = Path(__file__).parent
MODULES = FOLDER / "node_modules"
WAIT_SECONDS = 120
MIN_NODE = (20, 19)
ENVIRONMENT = os.environ | {"NO_COLOR": "1", "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}


@pytest.fixture(scope="module")
async def url(module_database_url: str) -> AsyncIterator[str]:
    """The URL of a running service."""
    app = create_app(make_settings(module_database_url), passwords=Passwords(cost=4))
    async with app.router.lifespan_context(app), served(app) as address:
        yield f"http://{address}"


def node_version() -> tuple[int, ...]:
    """Return the version of Node.js; (0,) on a machine without it."""
    if not (shutil.which("node") and shutil.which("npm")):
        return (0,)
    text = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in text.strip().removeprefix("v").split(".")[:2])


@pytest.fixture(scope="module")
def _npm_packages() -> None:
    """The packages of package-lock.json, installed by the first of the test processes."""
    if node_version() < MIN_NODE:
        pytest.skip("needs Node.js 20.19 or newer, and npm")
    installed, lock = MODULES / ".package-lock.json", FOLDER / "package-lock.json"
    with (FOLDER / "package.json").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            command = ["npm", "ci", "--ignore-scripts", "--loglevel=error"]
            subprocess.run(command, cwd=FOLDER, check=True, timeout=WAIT_SECONDS)


@pytest.fixture
def workspace(tmp_path: Path, _npm_packages: None) -> Path:
    """A folder for a generated client, with the packages of npm."""
    (tmp_path / "node_modules").symlink_to(MODULES)
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(FOLDER / name, tmp_path)
    return tmp_path


async def run(*command: str, folder: Path, **variables: str) -> str:
    """Run a command in a folder; return what it prints. It fails if the exit status is not 0."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=ENVIRONMENT | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), WAIT_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_the_client_of_openapi_python_client_works(url: str, tmp_path: Path) -> None:
    options = ["--url", f"{url}/openapi.json", "--meta", "none", "--output-path", "task_manager_client"]
    generator = [sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning", *options]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # of Ruff, which formats the client
    assert "warning" not in (await run(*generator, folder=tmp_path, PATH=path)).lower()
    program = str(shutil.copy(FOLDER / "use_python_client.py", tmp_path))
    assert await run(sys.executable, program, url, token_hex(8), folder=tmp_path) == "ok\n"


async def run_program(workspace: Path, name: str, url: str) -> None:
    """Compile a program, which checks its types, and run it."""
    shutil.copy(FOLDER / f"{name}.ts", workspace)
    await run("node_modules/.bin/tsc", folder=workspace)
    assert await run("node", f"{name}.js", url, token_hex(8), folder=workspace) == "ok\n"


async def test_the_types_of_openapi_typescript_work(url: str, workspace: Path) -> None:
    command = ["node_modules/.bin/openapi-typescript", f"{url}/openapi.json", "--output", "generated.ts"]
    assert "warn" not in (await run(*command, folder=workspace)).lower()
    await run_program(workspace, "use_openapi_typescript", url)


async def test_the_client_of_hey_api_works(url: str, workspace: Path) -> None:
    command = ["node_modules/.bin/openapi-ts", "--input", f"{url}/openapi.json", "--output", "generated"]
    assert "warn" not in (await run(*command, "--no-log-file", folder=workspace)).lower()
    await run_program(workspace, "use_hey_api", url)


async def test_redocly_finds_no_error(url: str, workspace: Path) -> None:
    await run("node_modules/.bin/redocly", "lint", f"{url}/openapi.json", folder=workspace)


def test_the_lock_names_no_host() -> None:
    text = (FOLDER / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert len(packages) > 50
    assert not [name for name, package in packages.items() if name and "integrity" not in package]
    assert "://" not in text
