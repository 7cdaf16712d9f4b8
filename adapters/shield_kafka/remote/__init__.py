"""`kafka://`: a cluster as a place for messages of any client."""
