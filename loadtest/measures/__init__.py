"""What a load test measures: in the loaders while it runs, and put together after it.

histogram.py  distributions: recorded in a loader, merged in the coordinator
claims.py     every claim of a loader, from intended to answered
witness.py    when each stock level was published, heard from Redis itself
staleness.py  how old what viewers see is, and how far apart they see it
fairness.py   whether those who were first got the goods
build.py      the measures, counts and series of a summary, from all loaders

Nothing is corrected afterwards: what waited is in the latency from the intended instant.
"""
