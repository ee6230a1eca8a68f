"""PostgreSQL: the tables, the session and its two walls, the engine."""
