// What a user has changed and waits in this browser to be sent, and what the tasks look like with it.
import type { components } from "./api";
import type { Task, TaskUpdate } from "./tasks-client";

export type NewTask = components["schemas"]["TaskCreate"];
export type Anchor = components["schemas"]["Move"];
type Action =
  | { op: "create"; fields: NewTask }
  | { op: "update"; seen: Task; fields: TaskUpdate }
  | { op: "complete"; completed: boolean }
  | { op: "move"; to: Anchor }
  | { op: "delete" }
  | { op: "restore" };
/** `key`: its Idempotency-Key; `id`: the task's. */
export type Change = { key: string; id: string } & Action;

const place = (user: string) => `tasks of ${user}`;

/** What waits, the first first; the same in all tabs. */
export function waiting(user: string): Change[] {
  return JSON.parse(localStorage.getItem(place(user)) ?? "[]");
}

export function keep(user: string, changes: Change[]) {
  if (changes.length) localStorage.setItem(place(user), JSON.stringify(changes));
  else localStorage.removeItem(place(user));
}

/** The live tasks in their manual order, as they will be when all that waits has been sent. */
export function expected(known: Iterable<Task>, waiting: Change[]): Task[] {
  const tasks = new Map([...known].map((task) => [task.id, task]));
  for (const change of waiting) {
    const task = tasks.get(change.id);
    if (change.op === "create") tasks.set(change.id, made(change, tasks));
    else if (task) tasks.set(change.id, { ...task, ...effect(change, task, tasks) });
  }
  return inOrder(tasks);
}

function effect(change: Exclude<Change, { op: "create" }>, task: Task, tasks: Map<string, Task>): Partial<Task> {
  switch (change.op) {
    case "update":
      return { ...task, ...(change.fields as Partial<Task>) };
    case "complete":
      return { completed: change.completed };
    case "move":
      return { position: between(inOrder(tasks).filter((other) => other.id !== task.id), change.to) };
    case "delete":
      return { deleted_at: new Date().toISOString() };
    case "restore":
      return { deleted_at: null };
  }
}

function made({ id, fields }: Change & { op: "create" }, tasks: Map<string, Task>): Task {
  const now = new Date().toISOString();
  const blank = { description: null, completed: false, completed_at: null, due_date: null, recurrence: null };
  const rest = { tags: [], repeat_from: "due", created_at: now, updated_at: now, deleted_at: null, version: 0 };
  const end = between(inOrder(tasks), { after: null });
  return { id, user_id: "", priority: "medium", position: end, ...blank, ...rest, ...fields } as unknown as Task;
}

/** A position behind or before another task's; null stands for the end, or the start. */
function between(others: Task[], anchor: Anchor): number {
  const behind = "after" in anchor;
  const found = others.findIndex((task) => task.id === (behind ? anchor.after : anchor.before));
  const index = found < 0 ? (behind ? others.length : 0) : found + (behind ? 1 : 0);
  const [before, after] = [others[index - 1]?.position, others[index]?.position];
  if (before === undefined) return (after ?? 0) - 1;
  return after === undefined ? before + 1 : (before + after) / 2;
}

function inOrder(tasks: Map<string, Task>): Task[] {
  const live = [...tasks.values()].filter((task) => !task.deleted_at);
  return live.sort((one, other) => one.position - other.position || (one.id < other.id ? -1 : 1));
}
