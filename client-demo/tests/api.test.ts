import { afterEach, expect, test, vi } from "vitest";
import { call, download } from "../src/ui/api";

afterEach(() => void vi.unstubAllGlobals());

/** An answer whose body breaks off. */
const cut = () =>
  new Response(new ReadableStream({ start: (body) => body.error(new TypeError("cut")) }));

test("an answer that breaks off is a network error, for JSON and for a file", async () => {
  vi.stubGlobal("fetch", async () => cut());
  await expect(call("GET", "/api/x")).rejects.toMatchObject({ name: "network_error" });
  await expect(download("/api/x", "")).rejects.toMatchObject({ name: "network_error" });
});

test("a request that hangs ends as a network error", async () => {
  const timeout = vi.spyOn(AbortSignal, "timeout").mockReturnValue(AbortSignal.abort());
  vi.stubGlobal("fetch", async (_: string, { signal }: RequestInit) => signal?.throwIfAborted());
  await expect(call("GET", "/api/x")).rejects.toMatchObject({ name: "network_error" });
  expect(timeout).toHaveBeenCalledOnce();
  timeout.mockRestore();
});
