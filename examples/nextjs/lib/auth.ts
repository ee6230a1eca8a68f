// Better Auth: who the users are, and the tokens that todo_service knows them by.
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { jwt } from "better-auth/plugins";
import { SignJWT, type JWTPayload } from "jose";
import { headers } from "next/headers";

// Users live until the app is stopped. In an app of your own: `database: new Pool(…)`, see Better Auth's documentation.
// Next.js loads this module more than once, so what they live in is kept outside of it.
const kept = globalThis as { users?: Record<string, never[]> };
kept.users ??= { user: [], session: [], account: [], verification: [], jwks: [] };

const url = process.env.BETTER_AUTH_URL ?? "http://localhost:3000";
const secret = process.env.BETTER_AUTH_SECRET;

// By default tokens are signed with a key of which the service reads the public half at /api/auth/jwks. With
// TASKS_TOKENS=secret they are signed with the BETTER_AUTH_SECRET that the service shares.
const shared = {
  jwks: { remoteUrl: `${url}/api/auth/jwks`, keyPairConfig: { alg: "EdDSA" as const } },
  // Without issuer and audience, which a service that knows the secret alone has nothing to hold against.
  sign: ({ sub, iat, exp }: JWTPayload) =>
    new SignJWT({ sub, iat, exp }).setProtectedHeader({ alg: "HS256" }).sign(new TextEncoder().encode(secret)),
};
const bySecret = process.env.TASKS_TOKENS === "secret";

export const auth = betterAuth({
  baseURL: url,
  secret,
  database: memoryAdapter(kept.users),
  emailAndPassword: { enabled: true },
  telemetry: { enabled: false },
  // Off only for tests, which sign up faster than people do.
  rateLimit: { enabled: process.env.AUTH_RATE_LIMIT !== "off" },
  plugins: [
    jwt({
      jwks: bySecret ? shared.jwks : undefined,
      jwt: {
        expirationTime: process.env.TOKEN_LIFETIME ?? "15m",
        // The user's id is enough: name and address are none of the service's business.
        definePayload: () => ({}),
        sign: bySecret ? shared.sign : undefined,
      },
    }),
  ],
});

/** Who asks for a page; null: nobody who is signed in. */
export async function currentUser() {
  const session = await auth.api.getSession({ headers: await headers() });
  return session && { id: session.user.id, name: session.user.name };
}

/** Their token, for server components. */
export async function currentToken() {
  return (await auth.api.getToken({ headers: await headers() })).token;
}
