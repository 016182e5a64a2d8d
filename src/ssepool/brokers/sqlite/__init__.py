"""Events in a SQLite file; the broker is in `broker`, which the URL's scheme loads."""
