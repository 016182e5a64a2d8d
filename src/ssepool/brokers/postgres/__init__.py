"""Events in PostgreSQL; the broker is in `broker`, which the URL's scheme loads."""
