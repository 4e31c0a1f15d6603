"""Small servers that `livesale bench` measures beside ours, each at its best settings.

Every binary WebSocket message a client sends goes to every client or, in those named echo, back
to this one.
Run as `python -m loadtest.bench.references.NAME PORT`, or `node NAME.cjs PORT`; they listen on
127.0.0.1 until killed.
"""
