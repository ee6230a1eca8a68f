"""The session and its walls, the engine, migrations, the wire."""
