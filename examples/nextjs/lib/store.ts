// A user's tasks in one tab: shown at once as they will be, sent when there is a network, and kept up to date.
//
// Every change waits in a queue of this browser until the service has answered it, so closing the tab loses nothing.
// Those that may not be done twice carry an Idempotency-Key. Others' changes are noticed by the list's ETag, for which
// the service reads one row, and then read from /api/tasks/changes.
import { expected, keep, waiting, type Anchor, type Change, type NewTask } from "./changes";
import { ok, Refused, SignedOut, type Task, type tasksClient, type TaskUpdate } from "./tasks-client";

const POLL_SECONDS = 5;

/** What was refused; `again`: a change that its user may insist on. */
export type Trouble = { message: string; again?: { id: string; fields: TaskUpdate } };
export type State = {
  tasks: Task[];
  waiting: number;
  loading: boolean;
  offline: boolean;
  signedOut: boolean;
  trouble: Trouble | null;
};

export class TaskStore {
  #known = new Map<string, Task>();
  #since: string | undefined;
  #etag: string | undefined;
  #next: Promise<void> | undefined;
  #listeners = new Set<() => void>();
  #state: State = { tasks: [], waiting: 0, loading: true, offline: false, signedOut: false, trouble: null };

  constructor(
    private user: string,
    private api: ReturnType<typeof tasksClient>,
  ) {}

  // --- What a component needs: useSyncExternalStore(store.subscribe, store.state, store.state)
  state = () => this.#state;
  subscribe = (listener: () => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Send and look for news, now and every few seconds while the page is seen; the answer ends it. */
  start(): () => void {
    const stop = new AbortController();
    const look = () => void (document.visibilityState === "visible" && this.sync());
    const timer = setInterval(look, POLL_SECONDS * 1000);
    addEventListener("online", look, stop);
    addEventListener("offline", () => this.#set({ offline: true }), stop);
    // Another tab has changed the queue.
    addEventListener("storage", look, stop);
    document.addEventListener("visibilitychange", look, stop);
    look();
    return () => (clearInterval(timer), stop.abort());
  }

  // --- What a user can do
  add = (fields: NewTask) => this.#do({ ...named(crypto.randomUUID()), op: "create", fields });
  update = (seen: Task, fields: TaskUpdate) => this.#do({ ...named(seen.id), op: "update", seen, fields });
  complete = ({ id }: Task, completed: boolean) => this.#do({ ...named(id), op: "complete", completed });
  move = ({ id }: Task, to: Anchor) => this.#do({ ...named(id), op: "move", to });
  remove = ({ id }: Task) => this.#do({ ...named(id), op: "delete" });
  restore = ({ id }: Task) => this.#do({ ...named(id), op: "restore" });

  insist({ id, fields }: NonNullable<Trouble["again"]>) {
    const task = this.#known.get(id);
    this.dismiss();
    if (task) this.update(task, fields);
  }

  dismiss = () => this.#set({ trouble: null });
  /** At sign-out: the token is good for a while yet. */
  forget = () => this.api.forget();

  /** One round at a time, over all tabs; who asks during one gets the next. */
  sync(): Promise<void> {
    this.#next ??= (async () => {
      await navigator.locks.request(`tasks of ${this.user}`, () => {
        this.#next = undefined;
        return this.#round();
      });
    })();
    return this.#next;
  }

  get #queue(): Change[] {
    return waiting(this.user);
  }

  set #queue(changes: Change[]) {
    keep(this.user, changes);
    this.#set({});
  }

  #do(change: Change) {
    this.#queue = [...this.#queue, change];
    void this.sync();
  }

  #set(state: Partial<State>) {
    const queue = this.#queue;
    const tasks = expected(this.#known.values(), queue);
    this.#state = { ...this.#state, ...state, tasks, waiting: queue.length };
    for (const listener of this.#listeners) listener();
  }

  async #round() {
    try {
      await this.#flush();
      await this.#pull();
      this.#set({ offline: false, loading: false });
    } catch (error) {
      if (error instanceof SignedOut) return this.#set({ signedOut: true });
      // No network, or a server that is busy or down: the next round tries again.
      if (error instanceof TypeError || passing(error)) return this.#set({ offline: true });
      this.#set({ loading: false, trouble: { message: error instanceof Error ? error.message : String(error) } });
    }
  }

  async #flush() {
    for (let change = this.#queue[0]; change; change = this.#queue[0]) {
      const { key, id } = change;
      try {
        const task = await this.#send(change);
        this.#known.set(task.id, task);
        // A service that names new tasks itself: what waits behind means this one.
        const rest = this.#queue.filter((other) => other.key !== key);
        this.#queue = JSON.parse(JSON.stringify(rest).replaceAll(id, task.id));
      } catch (error) {
        if (!(error instanceof Refused) || error.status === 401 || passing(error)) throw error;
        const trouble = told(change, error);
        // Nothing can be done to a task that could not be made.
        const lost = trouble && change.op === "create" ? id : null;
        this.#queue = this.#queue.filter((other) => other.key !== key && other.id !== lost);
        if (trouble) this.#set({ trouble });
      }
    }
  }

  async #send(change: Change): Promise<Task> {
    const path = { id: change.id };
    const header = { "Idempotency-Key": change.key };
    switch (change.op) {
      case "create":
        return ok(await this.api.POST("/api/tasks", { params: { header }, body: { ...change.fields, ...path } }));
      case "update":
        return this.api.update(change.seen, change.fields);
      case "complete": {
        const body = { completed: change.completed };
        return ok(await this.api.PATCH("/api/tasks/{id}/complete", { params: { path }, body }));
      }
      case "move":
        return ok(await this.api.POST("/api/tasks/{id}/move", { params: { path, header }, body: change.to }));
      case "delete":
        return ok(await this.api.DELETE("/api/tasks/{id}", { params: { path } }));
      case "restore":
        return ok(await this.api.POST("/api/tasks/{id}/restore", { params: { path, header } }));
    }
  }

  async #pull() {
    const params = { query: { limit: 1 }, header: { "If-None-Match": this.#etag } };
    const list = await this.api.GET("/api/tasks", { params, cache: "no-store" });
    if (list.response.status === 304) return;
    ok(list);
    for (let more = true; more; ) {
      const answer = await this.api.GET("/api/tasks/changes", { params: { query: { since: this.#since } } });
      if (answer.response.status === 410) {
        // Away for longer than deletions are remembered: from the start.
        this.#known.clear();
        this.#since = undefined;
        continue;
      }
      const { changes, next, has_more } = ok(answer);
      for (const change of changes) {
        if (change.purged) this.#known.delete(change.id);
        else this.#known.set(change.id, change.task);
      }
      this.#since = next;
      more = has_more;
    }
    this.#etag = list.response.headers.get("ETag") ?? undefined;
  }
}

const named = (id: string) => ({ key: crypto.randomUUID(), id });

/** Whether to try the same again later; `conflict`: the service is still at it. */
const passing = (error: unknown) =>
  error instanceof Refused && (error.status >= 500 || error.status === 429 || error.code === "conflict");

/** What to tell of a change that was refused; nothing where it had been made before, and the answer got lost. */
function told(change: Change, { status, code, message }: Refused): Trouble | null {
  if ((change.op === "delete" && status === 404) || (change.op === "create" && code === "exists")) return null;
  if (change.op !== "update" || status !== 412) return { message };
  const again = { id: change.id, fields: change.fields };
  return { message: `“${change.seen.title}” was changed elsewhere in the meantime. Yours is not saved.`, again };
}
