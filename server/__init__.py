"""livesale: a livestream-selling (直播带货) real-time server.

Packages import downwards only (tests/unit/test_imports.py):

    cli
    web | orders          process shells: viewers and hosts | order worker and audit
    acts                  what hosts do: PostgreSQL first, then applied to Redis
    hub | store | records fan-out in one process | Redis | PostgreSQL
    protocol              the wire
    domain                pure rules
    config clock errors limits telemetry   leaf modules
"""

__version__ = "0.1.0"
