"""The core: events, topics, feeds and the pool as plain data and functions; no clock, socket, task or thread."""
