/* Reference: ws on Node, `send` to every connection, no compression, no pings.
 *
 *     node ws_loop.cjs PORT
 *
 * Without PORT it only looks for ws, in NODE_PATH and where npm installs for everybody.
 */
const path = require("node:path");

module.paths.push(path.resolve(process.execPath, "../../lib/node_modules"), "/usr/local/lib/node_modules");
const { WebSocketServer } = require("ws");

const viewers = new Set();

/* Call `hear(viewer, message)` for every binary message, until killed. */
function serve(hear) {
  const port = Number(process.argv[2]);
  if (!port) return;
  const options = { host: "127.0.0.1", port, backlog: 4096, perMessageDeflate: false, clientTracking: false };
  new WebSocketServer(options).on("connection", (viewer) => {
    viewers.add(viewer);
    viewer.on("message", (message) => hear(viewer, message));
    viewer.on("error", () => viewer.terminate());
    viewer.on("close", () => viewers.delete(viewer));
  });
}

function toAll(_, message) {
  for (const viewer of viewers) viewer.send(message);
}

if (require.main === module) serve(toAll);
module.exports = { serve };
