import type { Connect, Plugin } from "vite";
import { defineConfig } from "vitest/config";
import { compressed } from "./vite.compressed.ts";
import { noExtensions } from "./vite.msgpack.ts";

/** The server's routes for the two pages, for `npm run dev`. */
function pageRoutes(): Plugin {
  const route: Connect.NextHandleFunction = (request, _response, next) => {
    const path = request.url ?? "/";
    if (path.startsWith("/watch/")) request.url = "/viewer.html";
    else if (path === "/host" || path.startsWith("/host/")) request.url = "/host.html";
    next();
  };
  return {
    name: "livesale-page-routes",
    configureServer: (server) => void server.middlewares.use(route),
  };
}

const server = process.env.LIVESALE_SERVER ?? "http://127.0.0.1:8000";

export default defineConfig({
  plugins: [pageRoutes(), compressed(), noExtensions()],
  server: {
    proxy: {
      "/api": server,
      "/demo/pay": server,
      "/ws": { target: server, ws: true },
    },
  },
  build: {
    target: "es2022",
    // No data: URIs: the Content-Security-Policy allows pictures of our own host.
    assetsInlineLimit: 0,
    // Which chunk brings which, for the test of the sizes.
    manifest: true,
    rolldownOptions: { input: { viewer: "viewer.html", host: "host.html", pay: "pay.html" } },
  },
  test: { include: ["tests/**/*.test.ts"] },
});
