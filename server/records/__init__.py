"""PostgreSQL, and nothing else: SQL lives in sql/ and migrations/, Python only runs it."""
