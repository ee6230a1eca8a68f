// What of the tasks is shown, and how dates are written. The same as the service's own ?status=, ?search= and ?sort=,
// but at once, and without a network.
import type { Task } from "./tasks-client";

export type Status = "all" | "pending" | "completed";
export const SORTS = {
  position: "My order",
  due_date: "Due date",
  priority: "Priority",
  created_at: "Newest",
  title: "Title",
};
export type Sort = keyof typeof SORTS;

const RANK = { high: 0, medium: 1, low: 2 };

export function shown(tasks: Task[], { status, sort, search }: { status: Status; sort: Sort; search: string }): Task[] {
  const words = search.toLowerCase().split(/\s+/);
  const found = tasks.filter(
    (task) =>
      (status === "all" || task.completed === (status === "completed")) &&
      words.every((word) => `${task.title}\n${task.description ?? ""}`.toLowerCase().includes(word)),
  );
  // They come in the user's own order, which remains that of equal ones.
  return sort === "position" ? found : found.sort(BY[sort]);
}

const BY: Record<Exclude<Sort, "position">, (one: Task, other: Task) => number> = {
  due_date: (one, other) => compared(one.due_date ?? "9999-99", other.due_date ?? "9999-99"),
  priority: (one, other) => RANK[one.priority] - RANK[other.priority],
  created_at: (one, other) => compared(other.created_at, one.created_at),
  title: (one, other) => one.title.localeCompare(other.title),
};

const compared = (one: string, other: string) => (one < other ? -1 : one > other ? 1 : 0);

export const counted = (count: number, noun: string) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** A day as the user's calendar has it, `2026-12-31`; of a moment, the day it falls on here. */
export function dayOf(due: string | Date): string {
  if (typeof due === "string" && due.length === 10) return due;
  const moment = new Date(due);
  return [moment.getFullYear(), moment.getMonth() + 1, moment.getDate()].map((n) => `${n}`.padStart(2, "0")).join("-");
}

/** How a due date is shown, and how urgent it is. */
export function due({ due_date, completed }: Task): { text: string; urgency: "overdue" | "today" | "later" } | null {
  if (!due_date) return null;
  const [day, today] = [dayOf(due_date), dayOf(new Date())];
  const days = Math.round((Date.parse(day) - Date.parse(today)) / 86_400_000);
  const near = ["Yesterday", "Today", "Tomorrow"][days + 1];
  const year = day.slice(0, 4) === today.slice(0, 4) ? undefined : ("numeric" as const);
  const far = { day: "numeric", month: "short", year, timeZone: "UTC" } as const;
  const text = near ?? new Date(`${day}T00:00Z`).toLocaleDateString("en", far);
  return { text, urgency: completed || days > 0 ? "later" : days < 0 ? "overdue" : "today" };
}
