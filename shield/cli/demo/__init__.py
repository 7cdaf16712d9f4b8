"""`shield demo`."""
