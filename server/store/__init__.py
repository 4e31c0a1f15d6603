"""Redis, and nothing else: keys, scripts, stock, events, bus, order stream."""
