import { useRef, useState, type KeyboardEvent, type PointerEvent } from "react";
import type { TaskStore } from "@/lib/store";
import type { Task } from "@/lib/tasks-client";
import { TaskRow } from "./task-row";

type Props = { tasks: Task[]; store: TaskStore; sortable: boolean; remove: (task: Task) => void };

/** The tasks; where `sortable`, a handle moves each: dragged with mouse, pen or finger, or with the arrow keys. */
export function TaskList({ tasks, store, sortable, remove }: Props) {
  const list = useRef<HTMLUListElement>(null);
  const [drag, setDrag] = useState<{ task: Task; to: number } | null>(null);
  const [said, setSaid] = useState("");
  const shown = drag ? reordered(tasks, drag.task, drag.to) : tasks;

  function move(task: Task, to: number) {
    const others = tasks.filter((other) => other.id !== task.id);
    if (to < 0 || to > others.length || tasks[to]?.id === task.id) return;
    store.move(task, to === 0 ? { before: others[0]!.id } : { after: others[to - 1]!.id });
    setSaid(`${task.title}: now ${to + 1} of ${tasks.length}`);
  }

  const handle = (task: Task) => ({
    onPointerDown(event: PointerEvent) {
      event.currentTarget.setPointerCapture(event.pointerId);
      setDrag({ task, to: tasks.indexOf(task) });
    },
    onPointerMove(event: PointerEvent) {
      if (!drag) return;
      const rows = [...list.current!.children].filter((row) => (row as HTMLElement).dataset.id !== task.id);
      const middle = (row: Element) => row.getBoundingClientRect().top + row.clientHeight / 2;
      setDrag({ task, to: rows.filter((row) => middle(row) < event.clientY).length });
    },
    onPointerUp() {
      if (drag) move(task, drag.to);
      setDrag(null);
    },
    onPointerCancel: () => setDrag(null),
    onKeyDown(event: KeyboardEvent) {
      const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      move(task, tasks.indexOf(task) + step);
    },
  });

  return (
    <>
      <ul className="tasks" ref={list} aria-label="Tasks">
        {shown.map((task) => (
          <TaskRow
            key={task.id}
            {...{ task, store, remove }}
            dragged={drag?.task.id === task.id}
            handle={sortable ? handle(task) : undefined}
          />
        ))}
      </ul>
      <p className="unseen" aria-live="polite">
        {said}
      </p>
    </>
  );
}

function reordered(tasks: Task[], task: Task, to: number): Task[] {
  const others = tasks.filter((other) => other.id !== task.id);
  return [...others.slice(0, to), task, ...others.slice(to)];
}
