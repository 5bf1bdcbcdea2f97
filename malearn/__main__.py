"""`python -m malearn`: the `malearn` command."""

from malearn.flows.cli import main

if __name__ == "__main__":
    main()
