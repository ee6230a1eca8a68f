import { useRef, useState, type FormEvent } from "react";
import type { NewTask } from "@/lib/changes";

export function AddTask({ add }: { add: (fields: NewTask) => void }) {
  const [title, setTitle] = useState("");
  const [day, setDay] = useState("");
  const field = useRef<HTMLInputElement>(null);

  function submit(event: FormEvent) {
    event.preventDefault();
    if (title.trim()) add({ title: title.trim(), ...(day && { due_date: day }) });
    setTitle("");
    setDay("");
    field.current?.focus();
  }

  return (
    <form className="card add" onSubmit={submit}>
      <input
        ref={field}
        className="bare"
        aria-label="New task"
        placeholder="What is to be done?"
        maxLength={200}
        value={title}
        onChange={(event) => setTitle(event.target.value)}
      />
      <input aria-label="Due date" type="date" value={day} onChange={(event) => setDay(event.target.value)} />
      <button className="primary">Add</button>
    </form>
  );
}
