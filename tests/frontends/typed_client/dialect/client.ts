// What an app does in a dialect of its own, in the types of that dialect's document.
import createClient from "openapi-fetch";
import type { components, paths } from "./api";
import { authClient } from "./auth-client";

declare const process: { env: Record<string, string | undefined> };

type Task = components["schemas"]["Task"];
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type Expect<T extends true> = T;

export type Checks = [
  Expect<Equal<Task["priority"], "P3" | "P2" | "P1">>,
  Expect<Equal<Task["tags"], string | null>>,
  Expect<Equal<Task["state"], "open" | "done">>,
  Expect<Equal<Task["dueDate"], string | null>>,
  Expect<Equal<Task["url"], string>>,
  Expect<Equal<components["schemas"]["TaskCreate"]["title"], string | undefined>>,
  Expect<Equal<components["schemas"]["Problem"]["error"], components["schemas"]["ErrorObject"]>>,
];

const api = createClient<paths>({ baseUrl: process.env["API"] ?? "" });
api.use({
  async onRequest({ request }) {
    const { data } = await authClient.token();
    request.headers.set("Authorization", `Bearer ${data?.token}`);
  },
});

async function main(): Promise<void> {
  const created = await api.POST("/api/todos", {
    body: { text: "Buy milk", tags: "home,shop", priority: "P1", dueDate: "2026-12-31", state: "open" },
  });
  const task = created.data?.task;
  if (!task) throw new Error("no task");
  const path = { id: task.id };
  // A whole task may be sent back.
  const changed = await api.PUT("/api/todos/{id}", { params: { path }, body: { ...task, text: "Buy tea" } });
  const done = await api.POST("/api/todos/{id}/toggle", { params: { path }, body: { state: "done" } });
  const list = await api.GET("/api/todos", { params: { query: { state: "done", sort: "dueDate", priority: ["P1"] } } });
  const batch = await api.POST("/api/todos/batch", {
    body: {
      operations: [
        { op: "create", task: { text: "Bread", tags: null } },
        { op: "complete", id: task.id, state: "open" },
      ],
    },
  });
  const stats = await api.GET("/api/todos/stats");
  const swept = await api.DELETE("/api/todos", { params: { query: { status: "done" } } });
  // @ts-expect-error no such priority here
  const refused = await api.POST("/api/todos", { body: { text: "x", priority: "low" } });
  // @ts-expect-error no such words here
  await api.PATCH("/api/todos/{id}", { params: { path }, body: { state: "later" } });
  // @ts-expect-error a list is in an object
  list.data?.map;
  const failed = await api.POST("/api/todos", { body: { text: "" } });
  console.log(
    JSON.stringify({
      created: [task.text, task.title, task.tags, task.priority, task.dueDate, task.state],
      changed: changed.data?.task.text,
      done: done.data?.task.state,
      list: [list.data?.tasks.map((found) => found.text), list.data?.total],
      batch: batch.data?.results.map((result) => [result.op, result.task.text, result.task.state]),
      stats: [stats.data?.by_priority.P1, stats.data?.by_priority.P2],
      swept: swept.data?.deleted,
      lenient: refused.response.status,
      failed: [failed.error?.error.code, failed.error?.errors.map((error) => error.field)],
    }),
  );
}

void main();
