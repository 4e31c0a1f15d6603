"""Load on a running livesale, and the benchmarks behind `livesale bench NAME`.

bench.py      the benchmarks by name, and how their figures are printed
fanout.py     CPU per delivered frame, beside a C floor and other servers
joins.py      CPU and memory per viewer
claim.py      claims from the first sent to the last confirmed
orders.py     how fast the order worker persists
script.py     the claim script alone
report.py     medians, percentiles and the result object
machine.py    what the numbers were measured on
process.py    children, their CPU time, their memory
stand.py      a whole livesale for a benchmark: Valkey, PostgreSQL, web, worker
peers.py      starting the floor and the other servers
wire.py       WebSocket frames as a client sees them
swarm.py      many cheap receivers in one process
buyers.py     many cheap buyers in one process
floor.c, references/   what ours is measured against

Nothing here is imported by the server. RESULTS.md keeps the numbers and what was tried.
"""
