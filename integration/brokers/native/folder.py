"""A broker's temporary folder, which does not outlive us either."""

import shutil
import tempfile
from pathlib import Path

from integration.brokers.native.guardian import Guardian

# By then the guardians of the processes that write into it have killed them.
_REMOVE = 'sleep 1; rm -rf -- "$1"'


class Folder:
    """Made at once; `remove` it, or the guardian does when this Python process is gone."""

    def __init__(self, name: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"broker-shield-{name}-"))
        self._guardian = Guardian("/bin/sh", "-c", _REMOVE, "remove", str(self.path))

    def remove(self) -> None:
        """Remove it with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._guardian.dismiss()
