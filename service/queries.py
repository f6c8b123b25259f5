"""Every statement under `sql/` by its path: `await q.tasks.get(db, task_id=1, …)`; `queries.pyi` has their types."""

from service.statements import load

q = load()
