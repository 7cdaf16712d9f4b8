"""What client adapters are built from."""
