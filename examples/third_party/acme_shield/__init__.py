"""What Acme adds to Shield: a policy `slots`, an action `drop_without`, a transport `sqlite://`."""
