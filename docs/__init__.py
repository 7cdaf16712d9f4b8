"""The documentation, and the program that writes its page of settings."""
