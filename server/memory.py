"""Garbage collection, arranged for processes that make many objects and few cycles."""

import gc
from typing import Final

# Middle and old generations: every so many collections of the one below.
_OLDER: Final = 20


def keep_out_of_collection(young: int) -> None:
    """Leave everything made so far out of garbage collection, and collect only after `young` new
    objects. What has no cycles is freed at once all the same."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, _OLDER, _OLDER)
