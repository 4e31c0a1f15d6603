"""Load on a livesale, and what became of it: `livesale loadtest` and the benchmarks.

command.py    `livesale loadtest`: what was asked, whether it can be, exit codes
execution.py  from what was asked to a run: whom it tests, who watches, what ends it
scenario.py   a load test as TOML: who comes, what is sold, what breaks, what must hold
presets/      those that come along
arrivals.py   when something is intended to happen, decided beforehand
people.py     the people of a run, dealt out to loaders and rooms
target.py     whom a run tests: addresses, tokens, host API; what may not be tested
run.py        one run from the first second to the report
loaders.py    loader processes, and what they tell
faults.py     what breaks, and when
outcome.py    the summary of a run
rehearsal.py  the run that a host orders from the console; canary.py: whether a real show feels it
swarm/        the people, in loader processes
measures/     what is measured
audit/        whether the sale was right, from outside of the server
report/       verdict, HTML, JUnit, live view, comparison
bench/        the benchmarks behind `livesale bench NAME`

stand.py      a whole livesale: Valkey, PostgreSQL, web, worker
process.py    children, their CPU time, their memory
machine.py    what the numbers were measured on
wire.py       WebSocket frames as a client sees them

Nothing here is imported by the server. RESULTS.md keeps the numbers and what was tried.
"""
