// A server component that asks the service itself, with a token of the user whose page it makes.
import createClient from "openapi-fetch";
import { redirect } from "next/navigation";
import { Header } from "@/components/header";
import type { paths } from "@/lib/api";
import { currentToken, currentUser } from "@/lib/auth";

const DAYS = 7;

export default async function Page({ searchParams }: { searchParams: Promise<{ tz?: string }> }) {
  const user = await currentUser();
  if (!user) redirect("/sign-in");
  const api = createClient<paths>({
    baseUrl: process.env.TASKS_URL ?? "http://localhost:8000",
    headers: { Authorization: `Bearer ${await currentToken()}` },
    cache: "no-store",
  });
  // Where the user's days begin, which only the browser knows: it is in the link to this page.
  const { tz } = await searchParams;
  const [stats, late] = await Promise.all([
    api.GET("/api/tasks/stats", { params: { query: { tz } } }).catch(unreachable),
    api.GET("/api/tasks", { params: { query: { overdue: true, tz, sort: "due_date", limit: 5 } } }).catch(unreachable),
  ]);
  const problem = stats.error ?? late.error;
  return (
    <>
      <Header user={user} />
      <main>
        <h1>Overview</h1>
        {problem && (
          <p role="alert" className="banner">
            {problem.detail}
          </p>
        )}
        {stats.data && (
          <>
            <dl className="figures">
              <Figure name="Open" value={stats.data.pending} />
              <Figure name="Due today" value={stats.data.due_today} />
              <Figure name="Overdue" value={stats.data.overdue} alarming={stats.data.overdue > 0} />
              <Figure name="Done" value={stats.data.completed} />
            </dl>
            <Chart days={stats.data.completed_per_day} />
          </>
        )}
        {late.data && late.data.length > 0 && (
          <section>
            <h2>Waiting longest</h2>
            <ul className="plain">
              {late.data.map((task) => (
                <li key={task.id}>
                  {task.title} <span className="due overdue">{task.due_date?.slice(0, 10)}</span>
                </li>
              ))}
            </ul>
          </section>
        )}
      </main>
    </>
  );
}

const unreachable = () => ({ data: undefined, error: { detail: "The tasks can't be read at the moment." } });

function Figure({ name, value, alarming = false }: { name: string; value: number; alarming?: boolean }) {
  return (
    <div className={alarming ? "alarming" : undefined}>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

const weekday = (day: string) => new Date(day).toLocaleDateString("en", { weekday: "short", timeZone: "UTC" });

function Chart({ days }: { days: Record<string, number> }) {
  const shown = Object.entries(days).sort().slice(-DAYS);
  const most = Math.max(1, ...shown.map(([, count]) => count));
  return (
    <section>
      <h2>Done each day</h2>
      <ol className="chart">
        {shown.map(([day, count]) => (
          <li key={day}>
            <span className="bar" style={{ blockSize: `${(count / most) * 6}rem` }} />
            <span>{count}</span>
            <time dateTime={day}>{weekday(day)}</time>
          </li>
        ))}
      </ol>
    </section>
  );
}
