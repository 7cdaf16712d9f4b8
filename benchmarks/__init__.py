"""Shield beside the bare clients and its peers, in the same run: `python -m benchmarks`."""
