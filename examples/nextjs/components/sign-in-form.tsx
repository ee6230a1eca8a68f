"use client";

import { useEffect, useState, type FormEvent } from "react";
import { authClient } from "@/lib/auth-client";

export function SignInForm() {
  const [isNew, setNew] = useState(false);
  // Until this code is there the browser would send the form by itself.
  const [busy, setBusy] = useState(true);
  useEffect(() => setBusy(false), []);
  const [problem, setProblem] = useState("");

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const text = (name: string) => String(form.get(name) ?? "");
    const [email, password] = [text("email"), text("password")];
    setBusy(true);
    setProblem("");
    const { error } = isNew
      ? await authClient.signUp.email({ name: text("name"), email, password })
      : await authClient.signIn.email({ email, password });
    // A new page, with nothing in memory of whoever was here before.
    if (!error) return location.assign("/");
    setProblem(error.message ?? "That didn't work. Is there a network?");
    setBusy(false);
  }

  return (
    <form className="card sign-in" method="post" onSubmit={submit}>
      <h1>{isNew ? "Create an account" : "Sign in"}</h1>
      <p className="hint">Your tasks, on every device, with or without a network.</p>
      {isNew && (
        <label>
          Name
          <input name="name" required autoComplete="name" maxLength={80} />
        </label>
      )}
      <label>
        E-mail
        <input name="email" type="email" required autoComplete="email" />
      </label>
      <label>
        Password
        <input
          name="password"
          type="password"
          required
          minLength={8}
          autoComplete={isNew ? "new-password" : "current-password"}
        />
      </label>
      {problem && (
        <p role="alert" className="banner">
          {problem}
        </p>
      )}
      <button className="primary" disabled={busy}>
        {isNew ? "Sign up" : "Sign in"}
      </button>
      <button type="button" className="link" disabled={busy} onClick={() => setNew(!isNew)}>
        {isNew ? "I have an account" : "Create an account"}
      </button>
    </form>
  );
}
