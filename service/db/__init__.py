"""The database: connections, statements, migrations, and what its errors mean."""
