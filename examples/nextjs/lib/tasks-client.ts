// Calls todo_service for one signed-in user. To copy: this file, the package openapi-fetch, and the types, made by
// `npx openapi-typescript https://tasks.example.com/api/openapi.json -o api.d.ts`.
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

export type Task = components["schemas"]["Task"];
export type TaskUpdate = components["schemas"]["TaskUpdate"];
type Answer<T> = { data?: T; error?: { code?: string; detail?: string }; response: Response };
/** Nobody is signed in, or by now somebody else is; nothing was sent. */
export class SignedOut extends Error {}
/** The service said no: `message` is a sentence to show; status 412 means that somebody else was faster. */
export class Refused extends Error {
  constructor(readonly status: number, readonly code = "", message = `The server answered ${status}.`) {
    super(message);
  }
}
/** The data of an answer, or Refused. Without a network fetch itself throws a TypeError. */
export function ok<T>({ data, error, response }: Answer<T>): T {
  if (data === undefined) throw new Refused(response.status, error?.code, error?.detail);
  return data;
}

export function tasksClient(user: string, baseUrl = "", tokenUrl = "/api/auth/token") {
  let [token, until]: [Promise<string> | null, number] = [null, 0];
  const forget = () => void (token = null);
  async function fresh(): Promise<string> {
    until = Infinity;
    const answer = await fetch(tokenUrl, { cache: "no-store" });
    if (!answer.ok && answer.status !== 401) throw new Refused(answer.status);
    const jwt: string = answer.ok ? (await answer.json()).token : "";
    const claims = jwt && JSON.parse(atob(jwt.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/")));
    if (claims?.sub !== user) throw new SignedOut();
    // By how long it lasts, as the clock here may be wrong; 5 seconds are for the way.
    until = Date.now() + (claims.exp - claims.iat - 5) * 1000;
    return jwt;
  }
  async function send(request: Request, again = true): Promise<Response> {
    if (Date.now() >= until) forget();
    token ??= fresh().catch((error) => (forget(), Promise.reject(error)));
    const attempt = request.clone();
    attempt.headers.set("Authorization", `Bearer ${await token}`);
    const answer = await fetch(attempt);
    if (answer.status === 401) forget();
    if (!again || (answer.status !== 401 && answer.status !== 429)) return answer;
    await new Promise((done) => setTimeout(done, Number(answer.headers.get("Retry-After")) * 1000));
    return send(request, false);
  }
  const api = createClient<paths>({ baseUrl, fetch: send });
  /** Change a task from what `seen` shows: what others changed since stays, but the same field is Refused, 412. */
  async function update(seen: Task, changes: TaskUpdate): Promise<Task> {
    const [path, header] = [{ id: seen.id }, { "If-Match": `"${seen.version}"` }];
    const answer = await api.PATCH("/api/tasks/{id}", { params: { path, header }, body: changes });
    if (answer.response.status !== 412) return ok(answer);
    const now = ok(await api.GET("/api/tasks/{id}", { params: { path } }));
    const same = (name: keyof TaskUpdate, task: TaskUpdate) => JSON.stringify(now[name]) === JSON.stringify(task[name]);
    const clash = (Object.keys(changes) as (keyof TaskUpdate)[]).some((key) => !same(key, seen) && !same(key, changes));
    return clash ? ok(answer) : update(now, changes);
  }
  return { ...api, update, forget };
}
