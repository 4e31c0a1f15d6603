"""Token buckets: how many things of a kind one viewer may do per time.

A bucket holds up to `burst` tokens and gains `per_second`; every thing done costs tokens. State is
two floats on the object, the time comes from the caller (monotonic ms), so nothing runs while
nobody asks.
"""

import math


class TokenBucket:
    """The tokens of one viewer for one kind of thing. Starts full."""

    __slots__ = ("_at_ms", "_tokens")

    def __init__(self, rule: "BucketRule", now_ms: float) -> None:
        self._tokens = rule.burst
        self._at_ms = now_ms

    def take(self, rule: "BucketRule", now_ms: float, cost: float = 1.0) -> int:
        """0 when `cost` tokens were there and are now gone; else ms until they would be there.

        Nothing is taken on a refusal. A cost above the burst never succeeds; it is told the time
        for a full bucket.
        """
        self._refill(rule, now_ms)
        if cost <= self._tokens:
            self._tokens -= cost
            return 0
        missing = min(cost, rule.burst) - self._tokens
        return max(1, math.ceil(missing / rule.per_ms))

    def take_up_to(self, rule: "BucketRule", now_ms: float, wanted: int) -> int:
        """As many of `wanted` whole tokens as are there (maybe 0); they are gone now."""
        self._refill(rule, now_ms)
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted

    def _refill(self, rule: "BucketRule", now_ms: float) -> None:
        if now_ms > self._at_ms:
            tokens = self._tokens + (now_ms - self._at_ms) * rule.per_ms
            self._tokens = (
                tokens if tokens < rule.burst else rule.burst
            )  # min() takes twice as long
            self._at_ms = now_ms


class BucketRule:
    """`per_second` tokens gained, at most `burst` held. Shared by all buckets of a kind."""

    __slots__ = ("burst", "per_ms")

    def __init__(self, per_second: float, burst: float) -> None:
        if not (per_second > 0 and burst >= 1):
            raise ValueError("a bucket needs a positive rate and a burst of at least 1")
        self.per_ms = per_second / 1_000
        self.burst = float(burst)
