"""What the tests on a real cluster share: bringing it up and down, and running things on it.

A test is two processes: the outer one brings the cluster up and down with the script `cluster` and runs the same file
again on the cluster's head, where the cases can call srun and see /shared. What ran is written in one line to
BUILD/tests/cluster/summary-NAME.txt, logs of a failed run lie beside it in logs-NAME.

The flavour is `nfs`, user-mode Linux nodes with an NFSv4.1 mount, or `gluster`. A test that may run on either takes
nfs; on a machine that does not boot user-mode Linux its cases run on gluster instead and the whole test FAILS all the
same, unless FVPREFETCH_TEST_NO_UML=1 says that this is known. So does a test that is for nfs alone.
"""

import argparse
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
CLUSTER = HERE / "cluster"
HEAD_ADDRESS = "10.77.0.10"
EXIT_NO_UML = 75

SHARED = pathlib.Path("/shared")
BIN = SHARED / "bin"  # copies: a node may not see the build folder, or see an old version of a file in it
FVPREFETCH = BIN / "fvprefetch"

STEP_TIMEOUT = 90  # seconds; only ends a run that hangs

OPTIONS = None  # set by main


# --- running things on the cluster --------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def __str__(self):
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Running:
    """A command on the head, with little but `environment`: what CI itself runs with must not reach the job."""

    def __init__(self, command, environment=()):
        self.command = [str(word) for word in command]
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
               "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {name: str(value) for name, value in dict(environment).items()}
        # Files, not pipes: a process that a killed srun leaves behind cannot keep us waiting for the end of a pipe.
        self.files = [tempfile.NamedTemporaryFile("w+"), tempfile.NamedTemporaryFile("w+")]
        self.process = subprocess.Popen(self.command, env=env, stdin=subprocess.DEVNULL, stdout=self.files[0],
                                        stderr=self.files[1], cwd="/")  # a folder that every node has

    @property
    def out(self):
        return pathlib.Path(self.files[0].name).read_text()

    @property
    def err(self):
        return pathlib.Path(self.files[1].name).read_text()

    def wait(self, timeout=STEP_TIMEOUT):
        try:
            return Outcome(self.process.wait(timeout=timeout), self.out, self.err)
        except subprocess.TimeoutExpired:
            state = state_of_cluster()
            subprocess.run(["scancel", "--user=root"], timeout=30)
            self.kill()
        raise AssertionError(f"still running after {timeout} s: {' '.join(self.command)}\n{state}"
                             f"{Outcome(-1, self.out, self.err)}")

    def kill(self):
        self.process.kill()
        self.process.wait()


def run(command, environment=()):
    return Running(command, environment).wait()


def state_of_cluster():
    """What tells a job that hangs from nodes or a server that do."""
    commands = [["squeue"], ["squeue", "--steps"], ["sinfo", "--Node", "--long"],
                ["pgrep", "-l", "ganesha|gluster|slurmctld"]]
    return "".join(subprocess.run(command, capture_output=True, text=True, timeout=30).stdout for command in commands)


def wait_for_job(job_id):
    """The state of the job, or of each task of the array. Not by sbatch --wait, which looks at 2, 10 and 42 s."""
    deadline = time.monotonic() + STEP_TIMEOUT
    while run(["squeue", "--noheader", f"--jobs={job_id}"]).out:
        if time.monotonic() > deadline:
            print(f"job {job_id} is still running after {STEP_TIMEOUT} s\n{state_of_cluster()}", flush=True)
            run(["scancel", job_id])
            return ["still running"]
        time.sleep(0.5)
    return re.findall(r"\bJobState=(\w+)", run(["scontrol", "--oneliner", "show", "job", job_id]).out)


def python():
    return OPTIONS.venv / "bin" / "python"


def copy_to_nodes(*files):
    BIN.mkdir(exist_ok=True)
    for file in files:
        shutil.copy2(file, BIN)


# --- bringing the cluster up and down --------------------------------------------------


def cluster(command, *words, **options):
    return subprocess.run([CLUSTER, command, *words], stdin=subprocess.DEVNULL, **options)


def what_is_missing(programs, modules):
    for program in programs:
        if not (OPTIONS.build_dir / program).exists():
            yield f"no {OPTIONS.build_dir / program}: build first, with MPI"
    for module in modules:
        if subprocess.run([python(), "-c", f"import {module}"], capture_output=True).returncode != 0:
            yield f"{python()} cannot import {module}"


def folders_of_python():
    """What the nodes must see for `VENV/bin/python` to work there, wherever the two lie."""
    code = "import sys; print(sys.base_prefix)"
    base = subprocess.run([python(), "-c", code], capture_output=True, text=True, check=True)
    folders = [str(OPTIONS.venv), str(OPTIONS.venv.resolve()), base.stdout.strip()]
    return ":".join(dict.fromkeys(folders))


def bring_up(nodes):
    """(the flavour that came up or None, whether this machine boots no user-mode Linux)"""
    wanted = OPTIONS.flavour or "nfs"
    code = cluster("up", wanted, str(nodes[wanted])).returncode
    if code == EXIT_NO_UML and OPTIONS.flavour is None:
        gluster_came_up = cluster("up", "gluster", str(nodes["gluster"])).returncode == 0
        return "gluster" if gluster_came_up else None, True
    return wanted if code == 0 else None, code == EXIT_NO_UML


def show_ends(logs):
    """Not all can fetch the files of the machine that the test failed on."""
    for log in sorted(path for path in logs.glob("*") if path.is_file()):
        lines = log.read_text(errors="replace").splitlines()[-15:]
        print("\n".join([f"--- the end of {log}", *(line[:200] for line in lines)]), flush=True)


def crashes_of_server():
    """How often the NFS server crashed and was started again (see `serve_nfs` in `head`)."""
    log = pathlib.Path(os.environ["FVC_ROOT"]) / "log" / "ganesha"
    return log.read_text(errors="replace").count(f"status {128 + signal.SIGSEGV}") if log.exists() else 0


def outer_main(script, name, nodes, programs, modules, arguments):
    problems = list(what_is_missing(programs, modules))
    if problems:
        return "FAILED: " + "; ".join(problems)
    logs = OPTIONS.build_dir / "tests" / "cluster" / f"logs-{name}"
    shutil.rmtree(logs, ignore_errors=True)
    # Two checkouts on one machine do not meet.
    folder = hashlib.sha256(str(OPTIONS.build_dir).encode()).hexdigest()[:8]
    os.environ.setdefault("FVC_ROOT", f"/var/tmp/fvcluster-{folder}")
    os.environ["FVC_EXPOSE"] = folders_of_python()
    accepted = os.environ.get("FVPREFETCH_TEST_NO_UML") == "1"
    failed = True
    try:
        flavour, no_uml = bring_up(nodes)
        if flavour is None and no_uml and OPTIONS.flavour == "nfs":
            failed = not accepted
            return ("passed over, WITHOUT NFS, since" if accepted else "FAILED:") + " no user-mode Linux boots here"
        if flavour is None:
            return "FAILED: the cluster did not come up"
        cases = cluster("run", sys.executable, script, "--on-the-head", *arguments, "--flavour", flavour)
        failed = cases.returncode != 0
        crashes = crashes_of_server()
    finally:
        if failed:
            cluster("logs", logs)
            show_ends(logs)
        cluster("down")
    what = {"nfs": "user-mode Linux nodes with NFSv4.1", "gluster": "GlusterFS nodes on one kernel"}[flavour]
    if no_uml:
        what += ", since this machine does not boot user-mode Linux"
    if crashes:
        what += f", whose server crashed {crashes} times and came back"
    if failed:
        return f"FAILED on {what}"
    if no_uml and not accepted:
        return f"FAILED: the cases passed, but only on {what}; FVPREFETCH_TEST_NO_UML=1 accepts that"
    return f"passed, but WITHOUT NFS, on {what}" if no_uml else f"passed on {what}"


def main(script, *, name, description, nodes, programs, modules=(), settings=()):
    """Of the test file `script`. nodes: {flavour: how many}; programs: of the build folder; modules: of the venv;
    settings: of the script `cluster`."""
    global OPTIONS
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", type=pathlib.Path, required=True)
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    parser.add_argument("--flavour", choices=["nfs", "gluster"], help="default: nfs, and gluster where that cannot be")
    parser.add_argument("--on-the-head", action="store_true", help=argparse.SUPPRESS)
    OPTIONS, unittest_arguments = parser.parse_known_args()
    OPTIONS.build_dir = OPTIONS.build_dir.resolve()
    OPTIONS.venv = OPTIONS.venv.absolute()  # a link to a folder stays one: the venv's scripts name that path
    if OPTIONS.on_the_head:
        unittest.main(argv=[sys.argv[0], *unittest_arguments], verbosity=2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` takes the cluster down
    os.environ.update(settings)
    if OPTIONS.flavour:
        name += f"_{OPTIONS.flavour}"
    verdict = outer_main(script, name, nodes, programs, modules, sys.argv[1:])
    print(f"cluster test {name}: {verdict}", flush=True)
    summary = OPTIONS.build_dir / "tests" / "cluster" / f"summary-{name}.txt"
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(f"cluster test {name}: {verdict}\n")
    sys.exit(0 if verdict.startswith("passed") else 1)
