"use client";

import { useDeferredValue, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { TaskStore } from "@/lib/store";
import { tasksClient, type Task } from "@/lib/tasks-client";
import { counted, shown, type Sort, type Status } from "@/lib/view";
import { AddTask } from "./add-task";
import { Header, type User } from "./header";
import { TaskList } from "./task-list";
import { Toolbar } from "./toolbar";

export function TaskApp({ user, baseUrl }: { user: User; baseUrl: string }) {
  const [store] = useState(() => new TaskStore(user.id, tasksClient(user.id, baseUrl)));
  const { tasks, waiting, loading, offline, signedOut, trouble } = useSyncExternalStore(
    store.subscribe,
    store.state,
    store.state,
  );
  const [status, setStatus] = useState<Status>("all");
  const [sort, setSort] = useState<Sort>("position");
  const [search, setSearch] = useState("");
  const [deleted, setDeleted] = useState<Task | null>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => store.start(), [store]);
  useEffect(() => {
    if (signedOut) location.assign("/");
  }, [signedOut]);

  // The focus is never lost with what had it.
  const close = () => (setDeleted(null), heading.current?.focus());
  const visible = shown(tasks, { status, sort, search: useDeferredValue(search) });
  return (
    <>
      <Header user={user} send={() => store.sync()} forget={store.forget} />
      <main>
        <div className="title">
          <h1 ref={heading} tabIndex={-1}>
            Tasks
          </h1>
          <p className={offline ? "sync offline" : "sync"} role="status">
            {offline ? "Offline" : waiting ? "Saving" : loading ? "Loading" : "Saved"}
            {waiting > 0 && ` · ${counted(waiting, "change")} to send`}
          </p>
        </div>
        {trouble && (
          <div role="alert" className="banner">
            <p>{trouble.message}</p>
            {trouble.again && <button onClick={() => store.insist(trouble.again!)}>Save mine</button>}
            <button onClick={store.dismiss}>Dismiss</button>
          </div>
        )}
        <AddTask add={store.add} />
        <Toolbar {...{ tasks, status, setStatus, sort, setSort, search, setSearch }} />
        {loading && !tasks.length ? (
          <ul className="tasks" aria-busy="true" aria-label="Loading">
            {[1, 2, 3].map((n) => (
              <li key={n} className="task ghost" />
            ))}
          </ul>
        ) : visible.length ? (
          <TaskList
            tasks={visible}
            store={store}
            sortable={sort === "position"}
            remove={(task) => (store.remove(task), setDeleted(task))}
          />
        ) : (
          <Empty filtered={tasks.length > 0} />
        )}
        {deleted && (
          <div className="toast" role="status">
            <p>
              Deleted <b>{deleted.title}</b>
            </p>
            {/* Who deletes by keyboard goes on here, and not from the top of the page. */}
            <button autoFocus key={deleted.id} onClick={() => (store.restore(deleted), close())}>
              Undo
            </button>
            <button aria-label="Close" onClick={close}>
              ✕
            </button>
          </div>
        )}
      </main>
    </>
  );
}

function Empty({ filtered }: { filtered: boolean }) {
  return (
    <div className="empty">
      <svg viewBox="0 0 32 32" aria-hidden="true">
        <path d="M6 17l7 7L27 8" />
      </svg>
      <p>{filtered ? "No task is like that." : "Nothing to do. Write down what comes to mind."}</p>
    </div>
  );
}
