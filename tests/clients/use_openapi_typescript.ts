// Use the types that openapi-typescript generated, with openapi-fetch: node use_openapi_typescript.mjs URL USERNAME
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { paths } from "./generated.js";

const [url, username] = process.argv.slice(2);
const password = "correct horse battery staple";
const content = new Uint8Array([0, 1, 32, 255]);
const client = createClient<paths>({ baseUrl: url });

const account = await client.POST("/auth/register", { body: { username, password } });
assert.equal(account.data?.username, username);
const token = await client.POST("/auth/login", { body: { username, password } });
client.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${token.data?.access_token}`);
  },
});

const ids: number[] = [];
for (const title of ["Task 0", "Task 1", "Task 2"]) {
  const { data } = await client.POST("/tasks", { body: { title } });
  assert.equal(data?.status, "todo");
  ids.push(data.id);
}
const page = await client.GET("/tasks", { params: { query: { limit: 2 } } });
const cursor = page.data?.next_cursor;
const rest = await client.GET("/tasks", { params: { query: { limit: 2, cursor } } });
const listed = [...(page.data?.items ?? []), ...(rest.data?.items ?? [])];
assert.deepEqual(listed.map((task) => task.id), ids.toReversed());
assert.equal(rest.data?.next_cursor, null);

const [task_id] = ids;
const changed = await client.PATCH("/tasks/{task_id}", { params: { path: { task_id } }, body: { status: "done" } });
assert.deepEqual([changed.data?.status, changed.data?.title, changed.data?.version], ["done", "Task 0", 2]);

const uploaded = await client.POST("/tasks/{task_id}/attachments", {
  params: { path: { task_id } },
  body: { file: "" }, // a file has the type string, so the serializer sends the bytes
  bodySerializer() {
    const form = new FormData();
    form.append("file", new Blob([content]), "report.bin");
    return form;
  },
});
assert.equal(uploaded.data?.size, content.length);
const downloaded = await client.GET("/tasks/{task_id}/attachments/{attachment_id}", {
  params: { path: { task_id, attachment_id: uploaded.data.id } },
  parseAs: "arrayBuffer",
});
assert.ok(downloaded.data);
assert.deepEqual(new Uint8Array(downloaded.data), content);

const missing = await client.GET("/tasks/{task_id}", { params: { path: { task_id: 2 ** 50 } } });
const code: "not_found" | undefined = missing.error?.code === "not_found" ? missing.error.code : undefined;
assert.equal(code, "not_found");
const invalid = await client.POST("/tasks", { body: { title: "" } });
assert.deepEqual(invalid.error?.errors?.map((error) => error.pointer), ["/title"]);
console.log("ok");
