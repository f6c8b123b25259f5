// Use the client that @hey-api/openapi-ts generated: node use_hey_api.mjs URL USERNAME
import assert from "node:assert/strict";
import { client } from "./generated/client.gen.js";
import {
  addAttachment,
  changeTask,
  createTask,
  downloadAttachment,
  getTask,
  listTasks,
  logIn,
  register,
} from "./generated/index.js";

const [url, username] = process.argv.slice(2);
const password = "correct horse battery staple";
const content = new Uint8Array([0, 1, 32, 255]);
client.setConfig({ baseUrl: url });

const account = await register({ body: { username, password } });
assert.equal(account.data?.username, username);
const token = await logIn({ body: { username, password } });
client.setConfig({ auth: () => token.data?.access_token });

const ids: number[] = [];
for (const title of ["Task 0", "Task 1", "Task 2"]) {
  const { data } = await createTask({ body: { title } });
  assert.equal(data?.status, "todo");
  ids.push(data.id);
}
const page = await listTasks({ query: { limit: 2 } });
const rest = await listTasks({ query: { limit: 2, cursor: page.data?.next_cursor } });
const listed = [...(page.data?.items ?? []), ...(rest.data?.items ?? [])];
assert.deepEqual(listed.map((task) => task.id), ids.toReversed());
assert.equal(rest.data?.next_cursor, null);

const [task_id] = ids;
const changed = await changeTask({ path: { task_id }, body: { status: "done" } });
assert.deepEqual([changed.data?.status, changed.data?.title, changed.data?.version], ["done", "Task 0", 2]);

const file = new File([content], "report.bin");
const uploaded = await addAttachment({ path: { task_id }, body: { file } });
assert.equal(uploaded.data?.size, content.length);
const path = { task_id, attachment_id: uploaded.data.id };
const downloaded = await downloadAttachment({ path, parseAs: "blob" });
assert.ok(downloaded.data);
assert.deepEqual(new Uint8Array(await downloaded.data.arrayBuffer()), content);

const missing = await getTask({ path: { task_id: 2 ** 50 } });
const code: "not_found" | undefined = missing.error?.code === "not_found" ? missing.error.code : undefined;
assert.equal(code, "not_found");
const invalid = await createTask({ body: { title: "" } });
assert.deepEqual(invalid.error?.errors?.map((error) => error.pointer), ["/title"]);
console.log("ok");
