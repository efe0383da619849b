"""`python -m flexrec` is the command `flexrec`."""

from flexrec.cli import main

if __name__ == "__main__":
    main()
