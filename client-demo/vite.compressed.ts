/** Compressed twins beside what was built: `x.js.br` and `x.js.gz`, which the server sends. */

import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import type { Plugin } from "vite";

const WORTH_IT = /\.(js|css|svg|html)$/;
const BYTES_MIN = 1_024;

export function compressed(): Plugin {
  let folder = "";
  return {
    name: "livesale-compressed",
    apply: "build",
    configResolved: (config) => {
      folder = resolve(config.root, config.build.outDir);
    },
    closeBundle: () => {
      for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
        if (WORTH_IT.test(name)) addTwins(resolve(folder, name));
      }
    },
  };
}

function addTwins(path: string): void {
  if (statSync(path).size < BYTES_MIN) return;
  const bytes = readFileSync(path);
  const params = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
  writeFileSync(`${path}.br`, brotliCompressSync(bytes, { params }));
  writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }));
}
