"""`python -m service migrate`: move the schema, or print where it stands."""

from __future__ import annotations

import argparse

from service.core.settings import Settings
from service.db import embedded, migrations


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Move the schema, or say where it stands."""
    with embedded.database(settings) as url:
        if arguments.status:
            for one in migrations.status(url):
                print(f"{'applied' if one.applied else 'pending'}  {one.id}")
        elif arguments.rollback:
            for name in migrations.rollback(url, count=arguments.rollback):
                print(f"rolled back  {name}")
        else:
            done = migrations.migrate(url, to=arguments.to)
            print("\n".join(f"applied  {name}" for name in done) or "nothing to apply")
    return 0
