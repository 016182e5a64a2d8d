"""Events in NATS JetStream; the broker is in `broker`, which the URL's scheme loads."""
