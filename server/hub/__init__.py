"""Fan-out in one process: rooms, their viewers, and the beat at which frames leave.

Start at hub.py (which rooms exist), then board.py (what a room shows, with a position after every
change), phases.py (who has seen what, and the writing), viewer.py (one connection), ladder.py (who
does not keep up).
"""
