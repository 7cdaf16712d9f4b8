"""One connection with one confirming channel, and the thread that writes to it."""
