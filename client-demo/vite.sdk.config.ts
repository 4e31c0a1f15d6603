/** The SDK as one file, for pages that are not built with ours: dist/sdk/livesale.js. */

import { defineConfig } from "vite";
import { compressed } from "./vite.compressed.ts";
import { noExtensions } from "./vite.msgpack.ts";

export default defineConfig({
  plugins: [compressed(), noExtensions()],
  publicDir: false,
  build: {
    target: "es2022",
    outDir: "dist/sdk",
    lib: { entry: "src/live/index.ts", formats: ["es"], fileName: () => "livesale.js" },
    // A library keeps its white space by default; this one is sent to browsers as it is.
    rolldownOptions: { output: { minify: true } },
  },
});
