import { useState, type ButtonHTMLAttributes } from "react";
import type { TaskStore } from "@/lib/store";
import type { Task } from "@/lib/tasks-client";
import { due } from "@/lib/view";
import { EditTask } from "./edit-task";

type Props = {
  task: Task;
  store: TaskStore;
  remove: (task: Task) => void;
  dragged: boolean;
  handle?: ButtonHTMLAttributes<HTMLButtonElement>;
};

export function TaskRow({ task, store, remove, dragged, handle }: Props) {
  // As it was when editing began: what others change meanwhile is noticed by it. Null: editing has just ended.
  const [edited, setEdited] = useState<Task | null>();
  const when = due(task);
  if (edited) {
    const done = () => setEdited(null);
    return (
      <li className="task card" data-id={task.id}>
        <EditTask task={edited} save={(fields) => (store.update(edited, fields), done())} cancel={done} />
      </li>
    );
  }
  const state = `task card${task.completed ? " done" : ""}${dragged ? " dragged" : ""}`;
  return (
    <li className={state} data-id={task.id}>
      {handle && (
        <button className="handle" aria-label={`Move ${task.title}`} title="Drag, or use the arrow keys" {...handle}>
          <svg viewBox="0 0 10 16" aria-hidden="true">
            <path d="M3 3h0M7 3h0M3 8h0M7 8h0M3 13h0M7 13h0" />
          </svg>
        </button>
      )}
      <input
        type="checkbox"
        aria-label={`Done: ${task.title}`}
        checked={task.completed}
        onChange={(event) => store.complete(task, event.target.checked)}
      />
      <div className="text">
        <p className="name">{task.title}</p>
        {task.description && <p className="notes">{task.description}</p>}
        {(when || task.priority !== "medium" || task.recurrence || task.tags.length > 0) && (
          <p className="facts">
            {when && (
              <time className={`due ${when.urgency}`} dateTime={task.due_date!}>
                {when.text}
              </time>
            )}
            {task.priority !== "medium" && (
              <span className={`priority ${task.priority}`}>{task.priority} priority</span>
            )}
            {task.recurrence && <span>↻ {task.recurrence}</span>}
            {task.tags.map((tag) => (
              <span key={tag}>#{tag}</span>
            ))}
          </p>
        )}
      </div>
      <button
        className="quiet"
        aria-label={`Edit ${task.title}`}
        title="Edit"
        autoFocus={edited === null}
        onClick={() => setEdited(task)}
      >
        <svg viewBox="0 0 20 20" aria-hidden="true">
          <path d="M4 16l1-4 8-8 3 3-8 8zM11 6l3 3" />
        </svg>
      </button>
      <button className="quiet" aria-label={`Delete ${task.title}`} title="Delete" onClick={() => remove(task)}>
        <svg viewBox="0 0 20 20" aria-hidden="true">
          <path d="M4 6h12M8 6V4h4v2M6 6l1 10h6l1-10" />
        </svg>
      </button>
    </li>
  );
}
