"""The built-ins, found through entry points and the public hooks like anyone's plugin."""
