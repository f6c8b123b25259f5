"""Use the client that openapi-python-client generated: `python use_python_client.py URL USERNAME`."""

from __future__ import annotations

import sys
from io import BytesIO

from task_manager_client import AuthenticatedClient, Client
from task_manager_client.api.accounts import log_in, register
from task_manager_client.api.attachments import add_attachment, download_attachment
from task_manager_client.api.tasks import change_task, create_task, get_task, list_tasks
from task_manager_client.models import (
    AddAttachmentBody,
    Credentials,
    NewTask,
    ProblemCode,
    Registration,
    TaskPatch,
    TaskPatchStatus,
)
from task_manager_client.types import File

url, username = sys.argv[1:]
password, content = "correct horse battery staple", b"\x00\x01 report \xff"

anonymous = Client(base_url=url)
account = register.sync(client=anonymous, body=Registration(username=username, password=password))
assert account.username == username
token = log_in.sync(client=anonymous, body=Credentials(username=username, password=password))
client = AuthenticatedClient(base_url=url, token=token.access_token)

tasks = [create_task.sync(client=client, body=NewTask(title=f"Task {n}")) for n in range(3)]
assert tasks[0].status.value == "todo"
page = list_tasks.sync(client=client, limit=2)
rest = list_tasks.sync(client=client, limit=2, cursor=page.next_cursor)
assert [task.id for task in (*page.items, *rest.items)] == [task.id for task in reversed(tasks)]
assert rest.next_cursor is None

changed = change_task.sync(tasks[0].id, client=client, body=TaskPatch(status=TaskPatchStatus.DONE))
assert (changed.status.value, changed.title, changed.version) == ("done", "Task 0", 2)

file = File(payload=BytesIO(content), file_name="report.bin")
attachment = add_attachment.sync(tasks[0].id, client=client, body=AddAttachmentBody(file=file))
assert attachment.size == len(content)
download = download_attachment.sync(tasks[0].id, attachment.id, client=client)
assert download.payload.read() == content

problem = get_task.sync(2**62, client=client)
assert problem.code is ProblemCode.NOT_FOUND
invalid = create_task.sync(client=client, body=NewTask(title=""))
assert [error.pointer for error in invalid.errors] == ["/title"]
print("ok")
