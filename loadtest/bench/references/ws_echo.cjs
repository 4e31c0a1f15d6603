/* Reference: ws on Node, no compression, no pings; every message goes back to its sender. */
const { serve } = require("./ws_loop.cjs");

serve((viewer, message) => viewer.send(message));
