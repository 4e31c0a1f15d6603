"""A folder for PYTHONPATH: what is in it runs inside a web process that a benchmark watches."""
