"""A server of one's own: the process, and its end."""

import os
import pathlib
import re
import secrets
import shutil
import subprocess
import threading


def program():
    """The path of the program: $ERANK_PROGRAM, the one in this package, or the first on PATH."""
    packed = pathlib.Path(__file__).parent / "bin" / "erank"
    for path in (os.environ.get("ERANK_PROGRAM"), str(packed) if packed.exists() else None, shutil.which("erank")):
        if path:
            return path
    raise FileNotFoundError("the program erank is neither in this package nor on PATH; ERANK_PROGRAM may name it")


class Server:
    """`erank serve` on a free port, which ends with this object or with this process and those forked from it."""

    def __init__(self, options):
        self.key = secrets.token_urlsafe(32)
        self._pid = os.getpid()
        command = [program(), "serve", "--host", "127.0.0.1", "--port", "0", "--until-stdin-ends", *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.PIPE, text=True,
                                         start_new_session=True,  # an interrupt is for the caller, not for the server
                                         env={**os.environ, "ERANK_API_KEY": self.key})
        self.said = []  # the last lines on its stderr
        for line in self._process.stderr:
            self._note(line)
            if found := re.search(r"serving .* at (https?://\S+)", line):
                self.url = found.group(1)
                break
        else:
            self._process.wait()
            raise RuntimeError("".join(self.said).strip() or f"{command[0]} ended with {self._process.returncode}")
        threading.Thread(target=lambda: [self._note(line) for line in self._process.stderr], daemon=True).start()

    def _note(self, line):
        self.said.append(line)
        del self.said[:-20]

    def close(self):
        if self._pid != os.getpid():  # it is the parent's
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdin.close()
