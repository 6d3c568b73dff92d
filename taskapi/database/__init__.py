"""Users and tasks in SQLite or PostgreSQL: models, engines, the connection to PostgreSQL, migrations."""
