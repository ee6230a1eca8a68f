// What an app does with its tasks, in the types of the API's document. `./tasks` is the README's code.
import type { components } from "./api";
import { api, openTasks } from "./tasks";

type Problem = components["schemas"]["Problem"];

/** The answer's data; an error becomes an exception with the sentence that a person can read. */
async function ok<T>(request: Promise<{ data?: T; error?: Problem; response: Response }>): Promise<T> {
  const { data, error } = await request;
  if (error) throw new Error(error.detail);
  if (data === undefined) throw new Error("no data");
  return data;
}

async function main(): Promise<void> {
  const start = await ok(api.GET("/api/tasks/changes"));
  const milk = await ok(
    api.POST("/api/tasks", {
      params: { header: { "Idempotency-Key": "one" } },
      body: { title: "Milk", priority: "high", due_date: "2026-12-31", tags: ["shop"], recurrence: "weekly" },
    }),
  );
  const again = await api.POST("/api/tasks", {
    params: { header: { "Idempotency-Key": "one" } },
    body: { title: "Milk", priority: "high", due_date: "2026-12-31", tags: ["shop"], recurrence: "weekly" },
  });
  const path = { id: milk.id };

  // A whole task may be sent back.
  const whole = await ok(api.PUT("/api/tasks/{id}", { params: { path }, body: { ...milk, title: "Oat milk" } }));
  const changed = await ok(
    api.PATCH("/api/tasks/{id}", {
      params: { path, header: { "If-Match": `"${whole.version}"` } },
      body: { description: "Two", priority: null },
    }),
  );
  const stale = await api.PATCH("/api/tasks/{id}", {
    params: { path, header: { "If-Match": '"0"' } },
    body: { title: "too late" },
  });
  const done = await ok(api.PATCH("/api/tasks/{id}/complete", { params: { path }, body: { completed: true } }));
  const toggled = await ok(api.PATCH("/api/tasks/{id}/complete", { params: { path } }));

  const { results } = await ok(
    api.POST("/api/tasks/batch", {
      body: {
        operations: [
          { op: "create", task: { title: "Bread", tags: ["shop", "baker"] } },
          { op: "complete", id: milk.id, completed: true, version: toggled.version },
          { op: "update", id: milk.id, task: { due_date: "2026-12-31T18:00:00+01:00", repeat_from: "completion" } },
        ],
      },
    }),
  );
  const bread = results[0];
  if (!bread) throw new Error("no result");
  const failed = await api.POST("/api/tasks/batch", { body: { operations: [{ op: "delete", id: "no-id" }] } });

  const page = await api.GET("/api/tasks", {
    params: { query: { tag: ["shop", "baker"], search: "brea", sort: "title", order: "asc", limit: 1, count: true } },
  });
  const sync = await ok(api.GET("/api/tasks/changes", { params: { query: { since: start.next } } }));
  const stats = await ok(api.GET("/api/tasks/stats", { params: { query: { tz: "Europe/Berlin" } } }));

  console.log(
    JSON.stringify({
      created: [milk.title, milk.priority, milk.due_date, milk.recurrence, milk.completed_at],
      replayed: [again.response.headers.get("Idempotency-Replayed"), again.data?.id === milk.id],
      changed: [changed.title, changed.description, changed.priority, changed.tags],
      stale: [stale.response.status, stale.error?.code],
      done: [done.completed, typeof done.completed_at, toggled.completed, toggled.completed_at],
      batch: results.map(({ op, task }) => [op, task.title, task.completed, task.due_date, task.repeat_from]),
      failed: [failed.response.status, failed.error?.errors.map((error) => error.field)],
      list: [page.data?.map((task) => task.title), page.response.headers.get("X-Total-Count")],
      open: (await openTasks()).map((task) => task.title),
      sync: [
        start.changes.length,
        sync.changes.map((change) => (change.purged ? [null, true] : [change.task.title, false])),
        sync.has_more,
      ],
      stats: [stats.total, stats.completed, stats.by_priority.medium, stats.by_tag["shop"], stats.by_tag["none"]],
    }),
  );
}

void main();
