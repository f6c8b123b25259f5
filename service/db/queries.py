"""Every statement under `sql/` by its path: `await q.tasks.get(db, task_id=1, …)`; `queries.pyi` has their types."""

from service.db.statements import load

q = load()
