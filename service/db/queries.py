"""Every statement by its path: `await q.tasks.get(db, task_id=1, …)`; `queries.pyi` declares their types."""

from service.db.statements import load

q = load()
