"""`python -m irlbook`, for programs that start a module rather than a script, as torchrun does."""

from irlbook.cli import main

if __name__ == "__main__":
    main()
