"""The nodes of tests/cluster for benchmarks: up, something run on them, and down however it ends."""

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path

CLUSTER = Path(__file__).resolve().parents[1] / "tests/cluster/cluster"
EXIT_NO_UML = 75


class LeftOut(Exception):
    """This cannot be measured here; the text says why."""


def run(argv, limit, **kwargs):
    """Runs to the end, or for `limit` seconds; what it started ends with it."""
    process = subprocess.Popen([str(a) for a in argv], start_new_session=True, **kwargs)
    try:
        return process.wait(limit)
    except BaseException as error:
        # First a word, so that the program removes what it made.
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return f"no end within {limit} s"
        raise


class Cluster:
    """Nodes with /shared between them, and srun."""

    def __init__(self, flavour, nodes, memory, prefix):
        self.flavour, self.nodes, self.prefix = flavour, nodes, prefix
        self.environment = os.environ | {"FVC_MEM": memory}

    def call(self, *words, limit=120, **kwargs):
        """The script `cluster`."""
        return run([CLUSTER, *words], limit, env=self.environment, **kwargs)

    @contextlib.contextmanager
    def up(self):
        """The folder it gives is this machine's, seen on the head, and removed in the end."""
        with tempfile.TemporaryDirectory(prefix=self.prefix, dir="/var/tmp") as root:
            # munged refuses a socket or key below a folder that its user cannot search.
            os.chmod(root, 0o755)
            # The cluster's folder is its own: `down` removes it.
            self.environment["FVC_ROOT"] = f"{root}/cluster"
            try:
                code = self.call("up", self.flavour, str(self.nodes), limit=400)
                if code == EXIT_NO_UML:
                    raise LeftOut("this machine does not boot user-mode Linux")
                if code != 0:
                    raise LeftOut(f"the cluster does not come up ({code})")
                yield Path(root)
            finally:
                self.call("down")

    def share(self, folder, name):
        """Copies to /shared, through the mount: a node may not see this machine's folders, or an old version of a file."""
        if self.call("run", "cp", "-r", folder, f"/shared/{name}") != 0:
            raise LeftOut("the shared folder cannot be written")
