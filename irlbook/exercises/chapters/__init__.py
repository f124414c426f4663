"""One module a chapter: its exercise cards, checks and named wrong answers."""
