"""A fleet of nodes and a million browsers in virtual time, on the real `ssepool.core.pool.Pool`. See docs/scale."""
