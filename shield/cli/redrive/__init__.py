"""`shield redrive`."""
