"""A Django project for the tests of `ssepool.django`, served by each server in a process of its own."""
