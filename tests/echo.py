"""A child process that repeats what it hears, until it is told to end."""

import json
import sys

for line in sys.stdin:
    if line == "end\n":
        break
    print(json.dumps({"heard": line.rstrip()}), flush=True)
