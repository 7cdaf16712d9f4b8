"""The clients' own tests, run with our classes in the place of theirs."""
