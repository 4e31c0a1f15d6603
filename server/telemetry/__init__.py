"""What the processes tell about themselves: metrics (logs are structlog, set up by the roots)."""
