// SPDX-License-Identifier: Apache-2.0
// An OpenID provider on loopback: one client, users by name, JWT access tokens for one API.
// Usage: node provider.mjs PORT ALGORITHM KID.  Prints "ready" when it listens.
import { exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";

const [port, algorithm, kid] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const { privateKey } = await generateKeyPair(algorithm, { extractable: true });
const key = { ...(await exportJWK(privateKey)), kid, use: "sig", alg: algorithm };

const rolesOf = (name) => (name === "alice" ? ["clerk", "viewer"] : []);

const provider = new Provider(issuer, {
  jwks: { keys: [key] },
  clients: [
    {
      client_id: "shop",
      client_secret: "a secret of this test only, and long enough",
      redirect_uris: [`${issuer}/callback`],
      grant_types: ["authorization_code"],
      response_types: ["code"],
      id_token_signed_response_alg: algorithm,
    },
  ],
  claims: { openid: ["sub"], email: ["email", "email_verified"], roles: ["roles"] },
  scopes: ["openid", "email", "roles"],
  conformIdTokenClaims: false,
  async findAccount(ctx, name) {
    return {
      accountId: name,
      async claims() {
        return { sub: name, roles: rolesOf(name), email: `${name}@shop.example`, email_verified: true };
      },
    };
  },
  async extraTokenClaims(ctx, token) {
    return token.accountId ? { roles: rolesOf(token.accountId) } : undefined;
  },
  features: {
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: async () => true,
      getResourceServerInfo: async () => ({
        scope: "api:use",
        audience: "shop-api",
        accessTokenFormat: "jwt",
        accessTokenTTL: 600,
        jwt: { sign: { alg: algorithm } },
      }),
    },
  },
  cookies: { keys: ["cookies of this test only"] },
  ttl: { IdToken: 600, Session: 600, Interaction: 600, Grant: 600 },
});

const server = provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
