"""Small servers that `livesale bench` measures beside ours, each at its best settings.

All speak the same protocol: every binary WebSocket message a client sends goes to every client.
Run as `python -m loadtest.references.NAME PORT`; they listen on 127.0.0.1 until killed.
"""
