"""Publishers that any number of threads share."""
