"""From a request to its slot and the first byte of its stream."""
