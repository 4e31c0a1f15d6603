"""What every check of the audit gets, and where it puts what it finds."""

from collections import Counter
from typing import Any

from loadtest.audit.books import Books
from loadtest.audit.findings import REASONS, Findings
from loadtest.audit.seen import ClaimKey, Seen
from loadtest.audit.timelines import Timelines


class Inspection:
    """`found` takes what does not hold, `explained` what would not but for a known reason;
    `checked` counts by invariant on how many things it was checked."""

    def __init__(self, seen: Seen, books: Books | None) -> None:
        self.seen = seen
        self.timelines = Timelines(seen, books)
        self.found = Findings()
        self.explained = Findings(REASONS)
        self.checked: Counter[str] = Counter()

    def add_claim(self, name: str, key: ClaimKey, **facts: Any) -> None:
        """A finding about one claim."""
        self.found.add(name, lambda: self.timelines.of_claim(key), **facts)

    def explain(self, name: str, key: ClaimKey) -> None:
        """A claim that has a known reason."""
        self.explained.add(name, lambda: self.timelines.of_claim(key))
