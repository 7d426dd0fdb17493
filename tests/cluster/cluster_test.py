#!/usr/bin/env python3
"""fvprefetch on a real Slurm cluster: two nodes, a shared file system, Open MPI over PMIx.

    python3 tests/cluster/cluster_test.py --build-dir build --venv VENV [unittest arguments, e.g. MpiJob]

Needs root, the packages of `tests/cluster/cluster install`, and in VENV the package huggingface_hub.

Two processes: the outer one brings the cluster up and down with the script `cluster` and runs this file again on the
cluster's head, where the cases can call srun and see /shared. The nodes are user-mode Linux with an NFSv4.1 mount. On a
machine that does not boot user-mode Linux the cases run on the GlusterFS flavour instead and the whole test FAILS all
the same, unless FVPREFETCH_TEST_NO_UML=1 says that this is known. What ran is written in one line to
BUILD/tests/cluster/summary.txt, logs of a failed run lie beside it.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
CLUSTER = HERE / "cluster"
SLURM_SCRIPTS = HERE.parents[1] / "slurm"
NODES = ["fvnode1", "fvnode2"]
HEAD_ADDRESS = "10.77.0.10"
EXIT_NO_UML = 75

SHARED = pathlib.Path("/shared")
BIN = SHARED / "bin"  # copies: a node may not see the build folder, or see an old version of a file in it
FVPREFETCH = BIN / "fvprefetch"
READER = BIN / "offline_reader.py"

STEP_TIMEOUT = 90  # seconds; only ends a run that hangs
# Slow enough that a download takes far longer than Slurm needs to start all processes: were there no lock, they would
# all be downloading.
HUB_BYTES_PER_SECOND = 1536 * 1024


# --- what the hub serves, and what of it a job must bring --------------------------------------------------


@dataclasses.dataclass(frozen=True)
class File:
    folder: str  # models/<org>/<name>, datasets/<org>/<name> or files
    path: str  # no two files of the hub end in the same path
    size: int
    wanted: bool = True

    @property
    def content(self):
        return random.Random(self.path).randbytes(self.size)

    @property
    def sha256(self):
        return hashlib.sha256(self.content).hexdigest()

    @property
    def repo(self):  # as huggingface_hub's arguments
        kind, _, repo_id = self.folder.partition("/")
        return {"repo_id": repo_id, "repo_type": kind.removesuffix("s")}

    def is_sent_at(self, request_path):  # LFS files come from the second host, by digest
        request_path = urllib.parse.unquote(request_path)
        return request_path.endswith(("/" + self.path, "/" + self.sha256))


SCORER, FLOW, PROMPTS = "models/acme/video-scorer", "models/acme/flow", "datasets/acme/prompts"
CONFIG = File(SCORER, "config.json", 311)
VOCABULARY = File(SCORER, "tokenizer/vocab.json", 20_011)
SHARD_1 = File(SCORER, "model-00001-of-00002.safetensors", 900_007)
SHARD_2 = File(SCORER, "model-00002-of-00002.safetensors", 500_003)
MODEL_CARD = File(SCORER, "README.md", 4_001, wanted=False)
FLOW_WEIGHTS = File(FLOW, "flow-things.pth", 300_007)
FLOW_OTHER = File(FLOW, "flow-kitti.pth", 300_011, wanted=False)
PROMPT_LINES = File(PROMPTS, "prompts.jsonl", 30_011)
LINEAR_HEAD = File("files", "aesthetic/linear-head.pth", 200_003)
TORCH_WEIGHTS = File("files", "torchvision/alexnet.pth", 400_009)
FILES = [CONFIG, VOCABULARY, SHARD_1, SHARD_2, MODEL_CARD, FLOW_WEIGHTS, FLOW_OTHER, PROMPT_LINES, LINEAR_HEAD,
         TORCH_WEIGHTS]
WANTED = [file for file in FILES if file.wanted]
SCORER_EXCLUDES = ["*.md"]


def manifest_entries(hub_url):
    return [
        {"name": "scorer", "source": "acme/video-scorer", "exclude": SCORER_EXCLUDES},
        {"name": "flow", "source": "acme/flow", "filename": FLOW_WEIGHTS.path},
        {"name": "prompts", "source": "acme/prompts", "repo_type": "dataset", "filename": PROMPT_LINES.path},
        {"name": "linear-head.pth", "source": f"{hub_url}/files/{LINEAR_HEAD.path}",
         "sha256": LINEAR_HEAD.sha256, "size": LINEAR_HEAD.size},
        {"name": "alexnet", "source": f"{hub_url}/files/{TORCH_WEIGHTS.path}",
         "dest": "torch/hub/checkpoints/alexnet.pth"},
    ]


def files_at(paths):
    """{entry: path}, as fvprefetch printed it -> {path of a file: sha256}."""
    single = {"flow": FLOW_WEIGHTS, "prompts": PROMPT_LINES, "linear-head.pth": LINEAR_HEAD, "alexnet": TORCH_WEIGHTS}
    files = {paths[name]: file.sha256 for name, file in single.items()}
    for file in [CONFIG, VOCABULARY, SHARD_1, SHARD_2]:
        files[f"{paths['scorer']}/{file.path}"] = file.sha256
    return files


class Hub:
    """The test hub, on the head."""

    def __init__(self, program, folder):
        for file in FILES:
            target = folder / "root" / file.folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.content)
        port_file = folder / "port.json"
        self.log = (folder / "hub.log").open("w+")
        self.process = subprocess.Popen(
            [program, "serve", "--root", folder / "root", "--bind", HEAD_ADDRESS, "--port", "0", "--port-file",
             port_file, "--throttle", str(HUB_BYTES_PER_SECOND)], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 30
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                self.log.seek(0)
                raise RuntimeError(f"the test hub does not start: {self.log.read()}")
            time.sleep(0.02)
        self.url = json.loads(port_file.read_text())["url"]
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def stats(self):
        with self.opener.open(f"{self.url}/_testhub/stats", timeout=10) as answer:
            return json.load(answer)

    def reset(self):
        self.opener.open(f"{self.url}/_testhub/reset", data=b"", timeout=10).close()

    def stop(self):
        self.process.kill()  # it has nothing to lose
        self.process.wait()


# --- running things on the cluster --------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def __str__(self):
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def run(command, environment=()):
    """On the head, with little but `environment`: what CI itself runs with must not reach the job."""
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
           "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"} | dict(environment)
    command = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # Files, not pipes: a process that a killed srun leaves behind cannot keep us waiting for the end of a pipe.
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            code = process.wait(timeout=STEP_TIMEOUT)
        except subprocess.TimeoutExpired:
            code = None
            queue = subprocess.run(["squeue", "--steps"], capture_output=True, text=True, timeout=30).stdout
            subprocess.run(["scancel", "--user=root"], timeout=30)
            process.kill()
            process.wait()
        out.seek(0)
        err.seek(0)
        outcome = Outcome(-1 if code is None else code, out.read(), err.read())
    if code is None:
        raise AssertionError(f"still running after {STEP_TIMEOUT} s: {' '.join(command)}\n{queue}{outcome}")
    return outcome


class Job:
    """A manifest and fresh caches on /shared, in a folder that no node has looked for before: the NFS client of a node
    may remember for a minute that a name is not there."""

    def __init__(self, name, entries=None):
        self.folder = SHARED / name
        self.folder.mkdir()
        self.manifest = self.folder / "manifest.json"
        self.manifest.write_text(json.dumps({"version": 1, "entries": entries or manifest_entries(HUB.url)}, indent=1))
        self.environment = {"HF_ENDPOINT": HUB.url, "HF_HUB_CACHE": self.folder / "hub",
                            "FASTVIDEO_EVAL_CACHE": self.folder / "eval"}

    def run(self, *command, **environment):
        return run(command, self.environment | environment)

    def srun(self, *words):
        return self.run("srun", "--nodes=2", *words)

    def fvprefetch(self, *srun_options, arguments=()):
        return self.srun(*srun_options, FVPREFETCH, self.manifest, *arguments)

    def reader_command(self, paths=None):
        """Loads every file of the job as its consumers do, and those at `paths` ({entry: path}, as printed)."""
        expected = self.folder / "expected.json"
        expected.write_text(json.dumps({
            "hub": [file.repo | {"filename": file.path, "sha256": file.sha256}
                    for file in WANTED if file.folder != "files"],
            "eval_cache": {"models/linear-head.pth": LINEAR_HEAD.sha256,
                           "torch/hub/checkpoints/alexnet.pth": TORCH_WEIGHTS.sha256},
            "snapshots": [CONFIG.repo | {"ignore_patterns": SCORER_EXCLUDES}],
            "snapshot_paths": [paths["scorer"]] if paths else [],
            "paths": files_at(paths) if paths else {}}))
        return [PYTHON, READER, expected]


HUB = None  # set by setUpModule
PYTHON = None
OPTIONS = None


def setUpModule():
    global HUB, PYTHON
    PYTHON = OPTIONS.venv / "bin" / "python"
    BIN.mkdir(exist_ok=True)
    for program in ("fvprefetch", "fvprefetch-mpi.so"):
        shutil.copy2(OPTIONS.build_dir / program, BIN)
    shutil.copy2(HERE / "offline_reader.py", READER)
    folder = tempfile.TemporaryDirectory(prefix="fvprefetch-cluster-test-")
    unittest.addModuleCleanup(folder.cleanup)
    HUB = Hub(OPTIONS.build_dir / "tests" / "testhub", pathlib.Path(folder.name))
    unittest.addModuleCleanup(HUB.stop)


class ClusterCase(unittest.TestCase):
    maxDiff = None
    longMessage = True

    def assert_exit(self, code, outcome):
        self.assertEqual(outcome.code, code, str(outcome))

    def paths_in(self, text):
        """The lines `name<TAB>path` for the five entries, which must be there once each, in manifest order."""
        lines = [line.split("\t") for line in text.splitlines() if "\t" in line]
        self.assertEqual([line[0] for line in lines], [entry["name"] for entry in manifest_entries(HUB.url)], text)
        return dict(lines)

    def assert_each_body_sent_once(self, stats):
        sent = {}
        for path, counts in stats["by_path"].items():
            if counts["body_bytes"]:
                name = next((file.path for file in FILES if file.is_sent_at(path)), path)
                sent[name] = sent.get(name, 0) + counts["body_bytes"]
        self.assertEqual(sent, {file.path: file.size for file in WANTED})

    def assert_both_nodes_report(self, text):
        """The lines of offline_reader.py."""
        for node in NODES:
            self.assertIn(f"{node}: {len(WANTED)} files loaded offline", text)


# --- the cases --------------------------------------------------


class ColdJob:
    """What every job with a cold cache must do, however its processes were started. For a TestCase with SRUN."""

    @classmethod
    def setUpClass(cls):
        cls.job = Job(cls.__name__)
        HUB.reset()
        cls.cold = cls.job.fvprefetch(*cls.SRUN)
        cls.stats = HUB.stats()

    def test_every_rank_exits_0(self):
        self.assert_exit(0, self.cold)  # srun's status is the highest of all tasks

    def test_each_body_is_sent_once(self):
        self.assert_each_body_sent_once(self.stats)

    def test_only_one_rank_prints_the_paths(self):
        self.assertEqual(len(self.cold.out.splitlines()), len(self.paths_in(self.cold.out)), str(self.cold))

    def test_python_loads_every_file_offline_on_both_nodes(self):
        reader = self.job.reader_command(self.paths_in(self.cold.out))
        HUB.reset()
        outcome = self.job.srun("--mpi=none", "--ntasks-per-node=1", "env", "HF_HUB_OFFLINE=1", *reader)
        self.assert_exit(0, outcome)
        self.assert_both_nodes_report(outcome.out)
        self.assertEqual(HUB.stats()["requests"], 0)


class MpiJob(ColdJob, ClusterCase):
    SRUN = ["--ntasks-per-node=2", "-K1"]

    def test_says_nothing_about_the_launcher(self):
        self.assertNotIn("--mpi=", self.cold.err)

    def test_a_warm_run_sends_no_request(self):
        HUB.reset()
        warm = self.job.fvprefetch(*self.SRUN)
        self.assert_exit(0, warm)
        self.assertEqual(warm.out, self.cold.out)
        self.assertEqual(HUB.stats()["by_path"], {})
        self.assertEqual(HUB.stats()["requests"], 0)

    def test_the_report_counts_ranks_and_nodes(self):
        outcome = self.job.fvprefetch(*self.SRUN, arguments=["--json"])
        self.assert_exit(0, outcome)
        report = json.loads(outcome.out)
        self.assertEqual((report["ranks"], report["nodes"]), (4, 2), outcome.out)
        self.assertEqual({entry["state"] for entry in report["entries"]}, {"hit"}, outcome.out)


class LockOnlyJob(ColdJob):
    """Slurm started the processes, but this Open MPI would abort in MPI_Init."""

    def test_one_line_names_the_remedy(self):
        lines = [line for line in self.cold.err.splitlines() if "--mpi=pmix" in line]
        self.assertEqual(len(lines), 1, str(self.cold))


class JobWithoutPmi(LockOnlyJob, ClusterCase):
    SRUN = ["--mpi=none", "--ntasks-per-node=2", "-K1"]


class JobWithPmi2(LockOnlyJob, ClusterCase):
    SRUN = ["--mpi=pmi2", "--ntasks-per-node=2", "-K1"]


class SixteenProcessesWithoutPmi(LockOnlyJob, ClusterCase):
    SRUN = ["--mpi=none", "--ntasks-per-node=8", "--overcommit", "-K1"]


class FailingEntry(ClusterCase):
    """A 404 in the third of five entries."""

    RANKS = 8

    def job_with_404(self, name):
        entries = manifest_entries(HUB.url)
        entries[2] = {"name": "gone.pth", "source": f"{HUB.url}/files/gone.pth"}
        return Job(name, entries)

    def assert_nothing_left(self, job):
        outcome = job.srun("--mpi=none", "--ntasks-per-node=1", "bash", "-c", "! pgrep -x fvprefetch")
        self.assert_exit(0, outcome)
        self.assertFalse((job.folder / "eval" / "models" / "gone.pth").exists())

    def test_every_rank_ends_by_itself_with_exit_5(self):
        # -K0, so that no rank is ended by Slurm because another one has failed.
        job = self.job_with_404("FailingEntry.each")
        outcome = job.srun("--ntasks-per-node=4", "-K0", "bash", "-c",
                           f'{FVPREFETCH} {job.manifest}; echo $? > {job.folder}/status.$SLURM_PROCID')
        self.assert_exit(0, outcome)
        codes = [(job.folder / f"status.{rank}").read_text() for rank in range(self.RANKS)]
        self.assertEqual(codes, ["5\n"] * self.RANKS, str(outcome))
        self.assertIn("gone.pth", outcome.err)
        self.assert_nothing_left(job)

    def test_srun_exits_5(self):
        job = self.job_with_404("FailingEntry.srun")
        outcome = job.fvprefetch("--ntasks-per-node=4", "-K1")
        self.assert_exit(5, outcome)
        self.assert_nothing_left(job)


class BatchScripts(ClusterCase):
    """The scripts in slurm/ as a user submits them. What they take from the environment of sbatch: FVPREFETCH,
    MANIFEST, the two caches, and EVAL, the command to run when everything is there, with the exports of
    `fvprefetch env`."""

    def wait_for(self, job_id):
        """The state of the job, or of each task of the array. Not by sbatch --wait, which looks at 2, 10 and 42 s."""
        deadline = time.monotonic() + STEP_TIMEOUT
        while run(["squeue", "--noheader", f"--jobs={job_id}"]).out:
            if time.monotonic() > deadline:
                run(["scancel", job_id])
                return ["still running"]
            time.sleep(0.5)
        return re.findall(r"\bJobState=(\w+)", run(["scontrol", "--oneliner", "show", "job", job_id]).out)

    def submit(self, job, script, *options, tasks=1):
        evaluation = job.folder / "evaluation"
        evaluation.write_text(f"#!/bin/sh\nexec {shlex.join(map(str, job.reader_command()))}\n")
        evaluation.chmod(0o755)
        HUB.reset()
        submitted = job.run("sbatch", "--parsable", *options, SLURM_SCRIPTS / script, FVPREFETCH=FVPREFETCH,
                            MANIFEST=job.manifest, EVAL=evaluation)
        self.assert_exit(0, submitted)
        states = self.wait_for(submitted.out.strip())
        output = {file.name: file.read_text() for file in sorted(job.folder.glob("output.*"))}
        self.assertEqual(states, ["COMPLETED"] * tasks, "".join(f"\n--- {k}\n{v}" for k, v in output.items()))
        return output

    def test_prefetch_then_evaluate(self):
        job = Job("BatchScripts.prefetch")
        output = self.submit(job, "prefetch.sbatch", "--nodes=2", "--ntasks-per-node=2",
                             f"--output={job.folder}/output.0")
        self.assert_each_body_sent_once(HUB.stats())
        self.assert_both_nodes_report(output["output.0"])

    def test_array_of_independent_tasks(self):
        job = Job("BatchScripts.array")
        # Half of a node for each of the four, so that two run on each node.
        output = self.submit(job, "prefetch-array.sbatch", "--array=0-3", "--cpus-per-task=4",
                             f"--output={job.folder}/output.%a", tasks=4)
        self.assert_each_body_sent_once(HUB.stats())
        self.assertEqual(list(output), [f"output.{task}" for task in range(4)])
        for text in output.values():
            self.paths_in(text)
            self.assertIn(f"{len(WANTED)} files loaded offline", text)
        self.assert_both_nodes_report("".join(output.values()))


# --- bringing the cluster up and down --------------------------------------------------


def cluster(command, *words, **options):
    return subprocess.run([CLUSTER, command, *words], stdin=subprocess.DEVNULL, **options)


def what_is_missing():
    for program in ("fvprefetch", "fvprefetch-mpi.so", "tests/testhub"):
        if not (OPTIONS.build_dir / program).exists():
            yield f"no {OPTIONS.build_dir / program}: build first, with MPI"
    python = OPTIONS.venv / "bin" / "python"
    if subprocess.run([python, "-c", "import huggingface_hub"], capture_output=True).returncode != 0:
        yield f"{python} cannot import huggingface_hub"


def folders_of_python():
    """What the nodes must see for `VENV/bin/python` to work there, wherever the two lie."""
    code = "import sys; print(sys.base_prefix)"
    base = subprocess.run([OPTIONS.venv / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    folders = [str(OPTIONS.venv), str(OPTIONS.venv.resolve()), base.stdout.strip()]
    return ":".join(dict.fromkeys(folders))


def bring_up():
    """The flavour that came up, or None."""
    code = cluster("up", "nfs", str(len(NODES))).returncode
    if code == EXIT_NO_UML and cluster("up", "gluster", str(len(NODES))).returncode == 0:
        return "gluster"
    return "nfs" if code == 0 else None


def outer_main(arguments):
    problems = list(what_is_missing())
    if problems:
        return "FAILED: " + "; ".join(problems)
    logs = OPTIONS.build_dir / "tests" / "cluster" / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    # Two checkouts on one machine do not meet.
    name = hashlib.sha256(str(OPTIONS.build_dir).encode()).hexdigest()[:8]
    os.environ.setdefault("FVC_ROOT", f"/var/tmp/fvcluster-{name}")
    os.environ["FVC_EXPOSE"] = folders_of_python()
    failed = True
    try:
        flavour = bring_up()
        if flavour is None:
            return "FAILED: the cluster did not come up"
        cases = cluster("run", sys.executable, HERE / "cluster_test.py", "--on-the-head", *arguments)
        failed = cases.returncode != 0
    finally:
        if failed:
            cluster("logs", logs)
            print(f"logs are in {logs}", flush=True)
        cluster("down")
    what = {"nfs": "user-mode Linux nodes with NFSv4.1",
            "gluster": "GlusterFS nodes on one kernel, since this machine does not boot user-mode Linux"}[flavour]
    if failed:
        return f"FAILED on {what}"
    if flavour == "gluster" and os.environ.get("FVPREFETCH_TEST_NO_UML") != "1":
        return f"FAILED: the cases passed, but only on {what}; FVPREFETCH_TEST_NO_UML=1 accepts that"
    return f"passed, but WITHOUT NFS, on {what}" if flavour == "gluster" else f"passed on {what}"


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", type=pathlib.Path, required=True)
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    parser.add_argument("--on-the-head", action="store_true", help=argparse.SUPPRESS)
    OPTIONS, unittest_arguments = parser.parse_known_args()
    OPTIONS.build_dir = OPTIONS.build_dir.resolve()
    OPTIONS.venv = OPTIONS.venv.absolute()  # a link to a folder stays one: the venv's scripts name that path
    if OPTIONS.on_the_head:
        unittest.main(argv=[sys.argv[0], *unittest_arguments], verbosity=2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` takes the cluster down
    verdict = outer_main(sys.argv[1:])
    print(f"cluster test: {verdict}", flush=True)
    summary = OPTIONS.build_dir / "tests" / "cluster" / "summary.txt"
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(f"cluster test: {verdict}\n")
    return 0 if verdict.startswith("passed") else 1


if __name__ == "__main__":
    sys.exit(main())
