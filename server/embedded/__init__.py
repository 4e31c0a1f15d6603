"""Real Valkey and PostgreSQL servers as children of ours, and the supervisor of `livesale up`.

supervisor.py  `livesale up`: what is started and stopped in which order
report.py      what is told, to people or to programs
data.py        the data directory: lock, secret, record of the servers, what runs
place.py       where data, sockets and binaries live, and as whom PostgreSQL runs
binaries.py    which server binaries are used
valkey.py      launcher of Valkey or Redis
postgres.py    launcher of PostgreSQL
remains.py     servers left behind by a supervisor that was killed
network.py     ports and addresses
node.py        Node for building the demo pages
"""
