"""The order worker: from the claims Redis accepted to orders in PostgreSQL."""
