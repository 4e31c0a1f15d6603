"""Child processes: started, watched, started again, and never left behind.

child.py    one foreground child process in its own session (leash.py is its first program)
notices.py  what a child says about itself: ready, stopping
parts.py    keeping a part running: restarts, crash loops
signals.py  the signals that a supervisor understands
"""
