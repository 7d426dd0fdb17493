"""Where locks are contended for: each place runs the program `contention` on a file system of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
CLUSTER = TOP / "tests/cluster/cluster"
EXIT_NO_UML = 75
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


class LeftOut(Exception):
    """This place cannot be measured here; the text says why."""


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


class Local:
    """Ranks of this machine. The lock cases have their contenders started by two ranks; the collective
    path has an MPI rank for each, more than there are cores."""

    def __init__(self, key, title, folder, build, python):
        self.key, self.title, self.folder = key, title, Path(folder)
        self.program, self.python = build / "bench/contention", python
        self.collective_ranks, self.most_blocking = 64, 1024

    @contextlib.contextmanager
    def up(self):
        if not self.folder.is_dir():
            raise LeftOut(f"no {self.folder}")
        yield self

    def contend(self, processes, options, results, limit):
        argv = ["mpirun", "-n", processes, self.program, "--dir", self.folder, "--output", results, *options]
        return run(argv, limit, env=os.environ | ENVIRONMENT)


class Cluster:
    """Two nodes of tests/cluster with a file system between them, and srun."""

    def __init__(self, flavour, title, build, python):
        self.key, self.title, self.flavour = flavour, title, flavour
        self.build, self.python = build, python
        self.collective_ranks = 16  # each node says that it has 8 cores
        # Linux asks an NFS server once a second for a lock that it waits for: N of them take N seconds.
        self.most_blocking = 8 if flavour == "nfs" else 1024
        self.environment = os.environ | {"FVC_MEM": "1200M"}

    def cluster(self, *words, limit=120, **kwargs):
        return run([CLUSTER, *words], limit, env=self.environment, **kwargs)

    @contextlib.contextmanager
    def up(self):
        with tempfile.TemporaryDirectory(prefix="fvp-contention-", dir="/var/tmp") as root:
            # munged refuses a socket or key below a folder that its user cannot search.
            os.chmod(root, 0o755)
            # The cluster's folder is its own: `down` removes it.
            self.environment["FVC_ROOT"] = f"{root}/cluster"
            try:
                code = self.cluster("up", self.flavour, "2", limit=400)
                if code == EXIT_NO_UML:
                    raise LeftOut("this machine does not boot user-mode Linux")
                if code != 0:
                    raise LeftOut(f"the cluster does not come up ({code})")
                self.install(Path(root))
                yield self
            finally:
                self.cluster("down")

    def install(self, root):
        # A node may not see the build folder, or see an old version of a file in it. Through the mount.
        staging = root / "bin"
        staging.mkdir()
        shutil.copy2(self.build / "bench/contention", staging)
        site = next(self.python.parent.parent.glob("lib/python3*/site-packages/filelock"))
        shutil.copytree(site, staging / "filelock", ignore=shutil.ignore_patterns("__pycache__"))
        # An interpreter with filelock that needs nothing of this machine's folders.
        (staging / "python").write_text('#!/bin/sh\nPYTHONPATH=/shared/bin exec /usr/bin/python3 "$@"\n')
        (staging / "python").chmod(0o755)
        if self.cluster("run", "cp", "-r", staging, "/shared/bin") != 0:
            raise LeftOut("the shared folder cannot be written")

    def contend(self, processes, options, results, limit):
        environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        options = ["/shared/bin/python" if o == str(self.python) else o for o in map(str, options)]
        # Cyclic: two ranks of any number are on two nodes.
        argv = ["srun", "-K1", "-D/shared", "-N2", f"-n{processes}", "-mcyclic", "/shared/bin/contention"]
        argv += ["--dir", "/shared"]
        argv += ["--output", "/shared/results", *options]
        code = self.cluster("run", "env", *environment, *argv, limit=limit)
        for suffix in ("csv", "json"):
            with open(f"{results}.{suffix}", "wb") as out:
                self.cluster("run", "cat", f"/shared/results.{suffix}", stdout=out, stderr=subprocess.DEVNULL)
        return code


def places(build, output, python):
    return [
        Local("disk", "local disk", output, build, python),
        Local("tmpfs", "tmpfs", "/dev/shm", build, python),
        Cluster("nfs", "NFSv4.1, two nodes", build, python),
        Cluster("gluster", "GlusterFS, two nodes", build, python),
    ]
