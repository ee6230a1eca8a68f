import type { NextConfig } from "next";

const tasks = process.env.TASKS_URL ?? "http://localhost:8000";

const config: NextConfig = {
  // The browser asks this app, and this app asks the service: one origin, so no CORS. Read when the app is built.
  rewrites: async () => [
    { source: "/api/tasks", destination: `${tasks}/api/tasks` },
    { source: "/api/tasks/:path*", destination: `${tasks}/api/tasks/:path*` },
  ],
  // This folder is a project of its own, whatever lies above it.
  turbopack: { root: import.meta.dirname },
  poweredByHeader: false,
};

export default config;
