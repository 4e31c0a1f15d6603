"""livesale: a livestream-selling (直播带货) real-time server.

Packages import downwards only (tests/unit/test_imports.py):

    cli
    web | orders          process shells: viewers and hosts | order worker
    acts | audit          what people do: PostgreSQL first, then applied to Redis | the proof
    hub | store | records | payments | webhooks
                          fan-out in one process | Redis | PostgreSQL | outside services
    protocol              the wire
    domain | supervision  pure rules | child processes
    config clock errors limits memory telemetry   leaf modules
"""

__version__ = "0.1.0"
