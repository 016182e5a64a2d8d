"""Events in Redis or Valkey; the broker is in `broker`, which the URL's scheme loads."""
