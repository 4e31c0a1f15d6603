"""The benchmarks behind `livesale bench NAME`.

command.py      the benchmarks by name, and how their figures are printed
table.py        all goals of the hub in one table
fanout.py       CPU per delivered frame, beside a C floor and other servers
joins.py        CPU and memory per viewer, and 10,000 joins at once
compression.py  what permessage-deflate saves and costs
room.py         a busy show of 10,000 viewers on one core
slow.py         viewers who do not keep up, and the others
storm.py        10,000 viewers thrown out at once
processes.py    two web processes on one port, and what each asks of Redis
opening.py      clock sync, and whether all buttons open together
soak.py         whether anything grows while viewers come and go
hub.py          CPU per claim at the hub, beside servers that echo
claim.py        claims from the first sent to the last confirmed
orders.py       how fast the order worker persists
script.py       the claim script alone

report.py       medians, percentiles, slopes and the result object
peers.py        starting the floor and the other servers
swarm.py        many cheap receivers in one process
crowd.py        more than that, by a program in C
buyers.py       many cheap buyers in one process
people.py       viewers who take part
clocks.py       viewers' clocks, and how they estimate the server's
publishing.py   news of a show through Redis
ages.py         how old what a viewer sees is
crowd.c, floor.c, references/   what ours is measured against
"""
