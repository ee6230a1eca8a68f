// A real Better Auth server for the Python tests: what the service has to accept is
// signed here by the library itself, not by a Python imitation of it.
//
// It keeps everything in memory, so each start is a blank issuer with new keys.
// Beside Better Auth's own /api/auth/* it serves the tokens which applications make
// with the shared secret, and a way to rotate keys on demand. Never deploy it.

import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { fromNodeHeaders, toNodeHandler } from "better-auth/node";
import { bearer, jwt } from "better-auth/plugins";
import { SignJWT } from "jose";

const port = Number(process.env.PORT);
const secret = process.env.BETTER_AUTH_SECRET;
// Without a secret Better Auth falls back to a published default, and the tests
// would then pass or fail for the wrong reason.
if (!port || !secret) throw new Error("PORT and BETTER_AUTH_SECRET must be set");

const origin = `http://127.0.0.1:${port}`;
// The raw text of the secret is the HMAC key; nothing decodes or derives it.
const hmacKey = new TextEncoder().encode(secret);
const tables = { user: [], session: [], account: [], verification: [], jwks: [] };

const issuer = (jwtOptions) =>
  betterAuth({
    baseURL: origin,
    secret,
    database: memoryAdapter(tables),
    emailAndPassword: { enabled: true },
    // The "jwt" strategy turns the session_data cookie into an HS256 token.
    session: { cookieCache: { enabled: true, strategy: "jwt" } },
    plugins: [jwt(jwtOptions), bearer()],
    // A test run signs up more users per second than any real browser does.
    rateLimit: { enabled: false },
    telemetry: { enabled: false },
  });

const auth = issuer();

// A custom `sign` replaces the plugin's key pair altogether, so HS256 needs an instance
// of its own. Sharing tables, secret and address, it knows the same sessions. The plugin
// insists on the `jwks` settings beside `sign`, although they play no part in signing.
const hs256Auth = issuer({
  jwks: { remoteUrl: `${origin}/api/auth/jwks`, keyPairConfig: { alg: "EdDSA" } },
  jwt: {
    sign: (claims) => new SignJWT(claims).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(hmacKey),
  },
});

// What a Next.js route handler does when its author signs by hand: no typ, iss or aud.
const signLikeARoute = ({ user }) =>
  new SignJWT({ sub: user.id, email: user.email, name: user.name })
    .setProtectedHeader({ alg: "HS256" })
    .setIssuedAt()
    .setExpirationTime("7d")
    .sign(hmacKey);

// Expiring keys is what `rotationInterval` does with time: Better Auth makes a new key
// at the next signing, and lists the expired one for another 30 days. Keys that are
// expired already keep their date, or rotating often would extend that grace period.
const rotate = async () => {
  const { adapter } = await auth.$context;
  const expiresAt = new Date(Date.now() - 1000);
  await adapter.updateMany({
    model: "jwks",
    where: [{ field: "expiresAt", value: null }],
    update: { expiresAt },
  });
  return { rotated: true };
};

const forSession = (makeToken) => async (request) => {
  const headers = fromNodeHeaders(request.headers);
  const session = await auth.api.getSession({ headers });
  return session && { token: await makeToken(session, headers) };
};

const routes = {
  "GET /hs256/sdk": forSession(signLikeARoute),
  "GET /hs256/plugin": forSession(async (_session, headers) => (await hs256Auth.api.getToken({ headers })).token),
  "POST /rotate": rotate,
};

const reply = (response, status, body) =>
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));

const betterAuthHandler = toNodeHandler(auth);

const server = createServer(async (request, response) => {
  const route = routes[`${request.method} ${request.url}`];
  if (!route) return betterAuthHandler(request, response);
  try {
    const body = await route(request);
    reply(response, body ? 200 : 401, body ?? { error: "not signed in" });
  } catch (error) {
    // An unanswered request would show up in the tests as a timeout without a cause.
    console.error(error);
    reply(response, 500, { error: String(error) });
  }
});

// The parent holds the other end of stdin: when it dies, even by SIGKILL, the pipe
// closes, and no orphan keeps the port.
process.stdin.on("end", () => process.exit(0)).resume();

server.listen(port, "127.0.0.1", () => console.log("ready"));
