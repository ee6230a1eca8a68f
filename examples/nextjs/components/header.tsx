"use client";

import Link from "next/link";
import { usePathname } from "next/navigation";
import { useEffect, useState } from "react";
import { authClient } from "@/lib/auth-client";
import { keep, waiting } from "@/lib/changes";

export type User = { id: string; name: string };

type Props = { user: User; send?: () => Promise<void>; forget?: () => void };

/** `send`: sends what waits, as far as it can be; `forget`: drops what is in memory of the user. */
export function Header({ user, send, forget }: Props) {
  const here = usePathname();
  const [zone, setZone] = useState("UTC");
  const [problem, setProblem] = useState("");
  useEffect(() => setZone(Intl.DateTimeFormat().resolvedOptions().timeZone), []);

  async function signOut() {
    await send?.();
    const left = waiting(user.id).length;
    if (left && !confirm(`${left} of your changes could not be sent yet. Sign out and lose them?`)) return;
    const { error } = await authClient.signOut().catch((error: unknown) => ({ error }));
    if (error) return setProblem("Signing out needs a network. Please try again.");
    keep(user.id, []);
    forget?.();
    // A new page, so that nothing else of this user's stays in memory.
    location.replace("/sign-in");
  }

  const link = (href: string, name: string) => (
    <Link href={href} prefetch={false} aria-current={here === href.split("?")[0] ? "page" : undefined}>
      {name}
    </Link>
  );
  return (
    <header>
      <nav aria-label="Pages">
        {link("/", "Tasks")}
        {link(`/overview?tz=${encodeURIComponent(zone)}`, "Overview")}
      </nav>
      <span className="who">{user.name}</span>
      <button className="quiet" onClick={() => void signOut()}>
        Sign out
      </button>
      {problem && (
        <p role="alert" className="banner">
          {problem}
        </p>
      )}
    </header>
  );
}
