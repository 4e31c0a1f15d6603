"""What hosts and moderators do: durable in PostgreSQL first, then applied to Redis."""
