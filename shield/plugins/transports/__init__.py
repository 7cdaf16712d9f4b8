"""The built-in transports."""
