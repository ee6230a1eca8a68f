import type { FormEvent } from "react";
import type { Task, TaskUpdate } from "@/lib/tasks-client";
import { dayOf } from "@/lib/view";

type Props = { task: Task; save: (fields: TaskUpdate) => void; cancel: () => void };

export function EditTask({ task, save, cancel }: Props) {
  const day = task.due_date ? dayOf(task.due_date) : "";

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const text = (name: string) => String(form.get(name)).trim();
    const all: TaskUpdate = {
      title: text("title"),
      description: text("description") || null,
      priority: text("priority") as Task["priority"],
      // A moment stays one, unless its day is changed.
      due_date: text("due") === day ? task.due_date : text("due") || null,
    };
    // Only what has changed: the rest may be changed by others meanwhile.
    const changed = Object.entries(all).filter(([name, value]) => value !== task[name as keyof Task]);
    if (changed.length) save(Object.fromEntries(changed));
    else cancel();
  }

  return (
    <form className="edit" onSubmit={submit} onKeyDown={(event) => event.key === "Escape" && cancel()}>
      <label>
        Title
        <input name="title" required pattern=".*\S.*" maxLength={200} defaultValue={task.title} autoFocus />
      </label>
      <label>
        Notes
        <textarea name="description" maxLength={2000} rows={3} defaultValue={task.description ?? ""} />
      </label>
      <label>
        Due date
        <input name="due" type="date" defaultValue={day} />
      </label>
      <label>
        Priority
        <select name="priority" defaultValue={task.priority}>
          <option value="low">Low</option>
          <option value="medium">Medium</option>
          <option value="high">High</option>
        </select>
      </label>
      <p className="buttons">
        <button className="primary">Save</button>
        <button type="button" onClick={cancel}>
          Cancel
        </button>
      </p>
    </form>
  );
}
