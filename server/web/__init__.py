"""The web process: everything that speaks HTTP and everything that admits viewers.

Start at app.py (what exists and who is given what), then serve.py (sockets, signals, the stop).
A viewer meets admission.py and door.py (may it come in), watch.py (the handshake), and from then
on server/hub; commands.py says what each of its commands does, policies.py and crew.py know the
rules and the hosts. Hosts meet endpoint.py and host_api.py. What is left: pages.py (with files.py,
content_policy.py and video.py), viewer_api.py and health.py.
"""
