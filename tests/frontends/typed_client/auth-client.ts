// In the place of Better Auth's client: a token that the test has made.
declare const process: { env: Record<string, string | undefined> };

export const authClient = {
  async token(): Promise<{ data: { token: string } | null }> {
    const token = process.env["TOKEN"];
    return { data: token === undefined ? null : { token } };
  },
};
