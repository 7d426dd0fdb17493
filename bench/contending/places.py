"""Where locks are contended for: each place runs the program `contention` on a file system of its own."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import cluster
from cluster import LeftOut, run

ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


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
        self.key, self.title = flavour, title
        self.build, self.python = build, python
        self.collective_ranks = 16  # each node says that it has 8 cores
        # Linux asks an NFS server once a second for a lock that it waits for: N of them take N seconds.
        self.most_blocking = 8 if flavour == "nfs" else 1024
        self.cluster = cluster.Cluster(flavour, 2, "1200M", "fvp-contention-")

    @contextlib.contextmanager
    def up(self):
        with self.cluster.up() as root:
            self.install(root)
            yield self

    def install(self, root):
        staging = root / "bin"
        staging.mkdir()
        shutil.copy2(self.build / "bench/contention", staging)
        site = next(self.python.parent.parent.glob("lib/python3*/site-packages/filelock"))
        shutil.copytree(site, staging / "filelock", ignore=shutil.ignore_patterns("__pycache__"))
        # An interpreter with filelock that needs nothing of this machine's folders.
        (staging / "python").write_text('#!/bin/sh\nPYTHONPATH=/shared/bin exec /usr/bin/python3 "$@"\n')
        (staging / "python").chmod(0o755)
        self.cluster.share(staging, "bin")

    def contend(self, processes, options, results, limit):
        environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        options = ["/shared/bin/python" if o == str(self.python) else o for o in map(str, options)]
        # Cyclic: two ranks of any number are on two nodes.
        argv = ["srun", "-K1", "-D/shared", "-N2", f"-n{processes}", "-mcyclic", "/shared/bin/contention"]
        argv += ["--dir", "/shared"]
        argv += ["--output", "/shared/results", *options]
        code = self.cluster.call("run", "env", *environment, *argv, limit=limit)
        for suffix in ("csv", "json"):
            with open(f"{results}.{suffix}", "wb") as out:
                self.cluster.call("run", "cat", f"/shared/results.{suffix}", stdout=out, stderr=subprocess.DEVNULL)
        return code


def places(build, output, python):
    return [
        Local("disk", "local disk", output, build, python),
        Local("tmpfs", "tmpfs", "/dev/shm", build, python),
        Cluster("nfs", "NFSv4.1, two nodes", build, python),
        Cluster("gluster", "GlusterFS, two nodes", build, python),
    ]
