"""`buffer`: messages over the limit in memory."""
