import { redirect } from "next/navigation";
import { TaskApp } from "@/components/task-app";
import { currentUser } from "@/lib/auth";

export default async function Page() {
  const user = await currentUser();
  if (!user) redirect("/sign-in");
  // Blank: by the rewrites in next.config.ts. An address: straight to the service, which has to list this app in its
  // CORS_ORIGINS.
  return <TaskApp key={user.id} user={user} baseUrl={process.env.TASKS_PUBLIC_URL ?? ""} />;
}
