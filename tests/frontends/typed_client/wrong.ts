// Uses that must not compile: tsc itself fails where one of these lines would.
import { api, openTasks } from "./tasks";

export async function wrong(): Promise<void> {
  // @ts-expect-error no such path
  await api.GET("/api/todos");
  // @ts-expect-error a title is needed
  await api.POST("/api/tasks", { body: { description: "x" } });
  // @ts-expect-error a title is never null
  await api.POST("/api/tasks", { body: { title: null } });
  // @ts-expect-error true or false
  await api.POST("/api/tasks", { body: { title: "x", completed: "yes" } });
  // @ts-expect-error no such priority
  await api.POST("/api/tasks", { body: { title: "x", priority: "urgent" } });
  // @ts-expect-error tags are strings
  await api.POST("/api/tasks", { body: { title: "x", tags: [1] } });
  // @ts-expect-error the id is needed
  await api.PATCH("/api/tasks/{id}", { body: { title: "x" } });
  // @ts-expect-error a task is completed or it isn't
  await api.PATCH("/api/tasks/{id}", { params: { path: { id: "1" } }, body: { completed: null } });
  // @ts-expect-error no such counting
  await api.PATCH("/api/tasks/{id}", { params: { path: { id: "1" } }, body: { repeat_from: "start" } });
  // @ts-expect-error no such status
  await api.GET("/api/tasks", { params: { query: { status: "done" } } });
  // @ts-expect-error a spelling for old clients, not for new ones
  await api.GET("/api/tasks", { params: { query: { sort_by: "created" } } });
  // @ts-expect-error which ones has to be said
  await api.DELETE("/api/tasks");
  // @ts-expect-error no such operation
  await api.POST("/api/tasks/batch", { body: { operations: [{ op: "move" }] } });
  // @ts-expect-error a new task needs a title
  await api.POST("/api/tasks/batch", { body: { operations: [{ op: "create", task: { tags: [] } }] } });
  // @ts-expect-error which task has to be said
  await api.POST("/api/tasks/batch", { body: { operations: [{ op: "update", task: { title: "x" } }] } });
  // @ts-expect-error what to set has to be said
  await api.POST("/api/tasks/batch", { body: { operations: [{ op: "update", id: "1" }] } });
  // @ts-expect-error which task has to be said
  await api.POST("/api/tasks/batch", { body: { operations: [{ op: "complete", completed: true }] } });
  // @ts-expect-error which task has to be said
  await api.POST("/api/tasks/batch", { body: { operations: [{ op: "delete" }] } });
  // @ts-expect-error only what is deleted can be so for good
  await api.POST("/api/tasks/batch", { body: { operations: [{ op: "complete", id: "1", permanent: true }] } });
  // @ts-expect-error a key is text
  await api.POST("/api/tasks", { params: { header: { "Idempotency-Key": 1 } }, body: { title: "x" } });

  const [task] = await openTasks();
  // @ts-expect-error the list may be empty
  task.title;
  if (!task) return;
  // @ts-expect-error a description may be null
  task.description.length;
  // @ts-expect-error a due date may be null
  task.due_date.length;
  // @ts-expect-error no such field
  task.colour;
  // @ts-expect-error no such priority
  if (task.priority === "urgent") return;
  const { data } = await api.GET("/api/tasks/changes");
  // @ts-expect-error a task that is gone for good is null
  data?.changes[0]?.task.title;
  // @ts-expect-error and so it is here
  for (const change of data?.changes ?? []) if (change.purged) change.task.title;
}
