"""Where spend is kept: SQLite in one file, or PostgreSQL for several nodes, behind one Protocol."""
