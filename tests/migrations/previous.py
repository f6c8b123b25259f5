"""Keeps the statements of a release, for the next one's schema to be held against.

`python -m tests.migrations.previous` when a release is made, and commit `previous.json` with it: from then on every
migration must leave these statements as they are to whoever still runs that release.
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
    """Give what this release sends, takes and gets, by statement and sort."""
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
