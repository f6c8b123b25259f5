"""`python -m service migrate`: apply migrations, roll them back, or list them."""

from __future__ import annotations

import argparse

from service.core.settings import Settings
from service.db import embedded, migrations


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Apply, roll back or list migrations, and print one line for each."""
    with embedded.database(settings) as url:
        if arguments.status:
            for migration in migrations.status(url):
                print(f"{'applied' if migration.applied else 'pending'}  {migration.id}")
        elif arguments.rollback:
            for name in migrations.rollback(url, count=arguments.rollback):
                print(f"rolled back  {name}")
        else:
            applied = migrations.migrate(url, to=arguments.to)
            print("\n".join(f"applied  {name}" for name in applied) or "nothing to apply")
    return 0
