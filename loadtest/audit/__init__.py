"""Whether a sale was right: what people were told against what Redis and PostgreSQL say.

seen.py        what the people of a run saw, from all loaders
books.py       Redis and PostgreSQL once they are at rest; books.sql: its statements
findings.py    the name and the words of everything that can be wrong
invariants.py  units, orders, limits and answers
screens.py     what viewers were shown
timelines.py   all that is known about one claim, in order
audit.py       the whole of it

It shares no rule and no statement with `livesale audit`, nor with what it judges: only the names of
Redis' keys. Two different ways have to come to the same figures.
"""
