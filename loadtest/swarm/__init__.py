"""The people of a load test: loader processes that hold thousands of lean viewers and buyers each.

pipe.py        what the coordinator and a loader process tell each other
sight.py       what viewers are shown: each distinct frame is read once, every viewer checked
entrance.py    addresses, handshakes under way, and what all connections of a loader share
connection.py  one viewer's WebSocket, that comes back by itself
buying.py      claims as the client SDK makes them, and their answers, checked
personas.py    who comes, and what they do
crowds.py      the people of one loader, and whose turn it is
deferred.py    counting of values, put off in a rush
ledger.py      what a loader has learned
health.py      how the loader itself fares
worker.py      the process
speed.py       what a received frame and a claim cost a loader
"""
