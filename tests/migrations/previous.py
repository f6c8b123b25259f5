"""Stores the statements of a release, to check the schema of the next release against them.

`python -m tests.migrations.previous` when a release is made, and commit `previous.json` with it: from then on every
migration must keep these statements working for processes that still run that release.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import asyncpg

from service.db import embedded, migrations
from service.dba import catalog

KEPT = Path(__file__).with_name("previous.json")


async def statements(url: str) -> dict[str, Any]:
    """Return text, parameters and columns of each statement and sort of this release."""
    connection = await asyncpg.connect(url)
    try:
        entries = await catalog.entries(connection)
    finally:
        await connection.close()
    return {
        f"{entry.statement.name} {sort}".rstrip(): {
            "text": text,
            "parameters": entry.prepared.parameters,
            "columns": entry.prepared.columns,
        }
        for entry in entries
        for sort, text in entry.statement.texts.items()
        if not entry.statement.name.startswith("dba.")
    }


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder, embedded.running(Path(folder, "pg")) as url:
        migrations.migrate(url)
        kept = {"migrations": migrations.release_ids(), "statements": asyncio.run(statements(url))}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
