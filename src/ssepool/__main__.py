"""`python -m ssepool` is the command `ssepool`."""

from ssepool.cli import main

if __name__ == "__main__":
    main()
