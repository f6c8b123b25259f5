"""An S3 server for tests: moto in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType

WAIT_SECONDS = 60
BUCKET = "attachments"
KEYS = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests-secret", "aws_region": "us-east-1"}


class S3Server:
    """A server with one bucket."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> S3Server:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COV"))}
        self._log = Path(tempfile.mkstemp(prefix="s3-")[1])
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=own, stdout=log, stderr=log)
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.unlink()

    def _answers(self) -> bool:
        request = urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(request, timeout=10):
            return True
        return False

    def settings(self, prefix: str, *, url: str = "") -> dict[str, str]:
        """Return the settings of a service that uses this server; `url` replaces its address."""
        return {"attachments_url": f"s3://{BUCKET}/{prefix}", "s3_endpoint_url": url or self.url, **KEYS}
