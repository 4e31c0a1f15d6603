"""The order worker and the audit: from the claims Redis accepted to orders in PostgreSQL."""
