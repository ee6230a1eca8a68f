import { redirect } from "next/navigation";
import { SignInForm } from "@/components/sign-in-form";
import { currentUser } from "@/lib/auth";

export default async function Page() {
  if (await currentUser()) redirect("/");
  return (
    <main className="narrow">
      <SignInForm />
    </main>
  );
}
