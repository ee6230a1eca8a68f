"""The tests speak HTTP to the service on a real PostgreSQL; `conftest.py` holds what they share."""
