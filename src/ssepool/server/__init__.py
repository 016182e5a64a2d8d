"""The stand-alone server: uvicorn, a listener of its own, and worker processes."""
