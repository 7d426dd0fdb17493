#!/usr/bin/env python3
"""fvprefetch on a real Slurm cluster: two nodes, a shared file system, Open MPI over PMIx.

    python3 tests/cluster/cluster_test.py --build-dir build --venv VENV [unittest arguments, e.g. MpiJob]

Needs root, the packages of `tests/cluster/cluster install`, and in VENV the package huggingface_hub. On which nodes it
runs: see on_cluster.py.
"""

import dataclasses
import hashlib
import json
import pathlib
import random
import re
import shlex
import shutil
import subprocess
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

import on_cluster
from on_cluster import BIN, FVPREFETCH, HEAD_ADDRESS, HERE, SHARED, run

SLURM_SCRIPTS = HERE.parents[1] / "slurm"
NODES = ["fvnode1", "fvnode2"]
READER = BIN / "offline_reader.py"
WRAPPER = BIN / "apptainer"  # tests/support/wrapper.cpp

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


# --- a job on the cluster --------------------------------------------------


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

    def start(self, *command, **environment):
        return on_cluster.Running(command, self.environment | environment)

    def run(self, *command, **environment):
        return self.start(*command, **environment).wait()

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
        return [on_cluster.python(), READER, expected]

    def read_offline(self, paths=None):
        return self.srun("--mpi=none", "--ntasks-per-node=1", "env", "HF_HUB_OFFLINE=1", *self.reader_command(paths))


HUB = None  # set by setUpModule


def setUpModule():
    global HUB
    build = on_cluster.OPTIONS.build_dir
    on_cluster.copy_to_nodes(build / "fvprefetch", build / "fvprefetch-mpi.so", build / "tests/wrappers/apptainer",
                             HERE / "offline_reader.py")
    folder = tempfile.TemporaryDirectory(prefix="fvprefetch-cluster-test-")
    unittest.addModuleCleanup(folder.cleanup)
    HUB = Hub(build / "tests" / "testhub", pathlib.Path(folder.name))
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

    def wait_until_it_downloads(self):
        """In the middle of the first large file."""
        deadline = time.monotonic() + on_cluster.STEP_TIMEOUT
        while HUB.stats()["body_bytes"] < SHARD_1.size // 2:
            self.assertLess(time.monotonic(), deadline, "nothing is downloaded")
            time.sleep(0.05)

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
        HUB.reset()
        outcome = self.job.read_offline(self.paths_in(self.cold.out))
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


class StagedJob(ClusterCase):
    """Every node has its own /local."""

    @classmethod
    def setUpClass(cls):
        cls.stage = f"/local/{cls.__name__}"
        # The program on the nodes' own disks: what they read of the server is the job's then. And of its
        # files the second node must not have read any before, or it would not do so again.
        cls.job = Job(cls.__name__)
        cls.job.fvprefetch(*MpiJob.SRUN)
        programs = cls.stage + ".bin"
        on_each = ["--mpi=none", "--ntasks-per-node=1"]
        cls.job.srun(*on_each, "cp", "-r", BIN, programs)
        cls.addClassCleanup(cls.job.srun, *on_each, "rm", "-r", programs)
        cls.read_before = cls.read_from_server(NODES[1])
        cls.staged = cls.job.srun(*MpiJob.SRUN, f"{programs}/{FVPREFETCH.name}", cls.job.manifest,
                                  "--stage", cls.stage, "--json")
        cls.read_after = cls.read_from_server(NODES[1])

    @classmethod
    def read_from_server(cls, node):
        """Bytes that the node has read of /shared so far; None where it is no NFS mount."""
        stats = cls.job.srun("--mpi=none", "-N1", "-n1", "-w", node, "cat", "/proc/self/mountstats").out
        part = stats[stats.find(" mounted on /shared "):]
        found = re.search(r"^\s*bytes:\s+((?:\d+\s+)+)", part, re.MULTILINE)
        return int(found.group(1).split()[4]) if found and " with fstype nfs" in part.splitlines()[0] else None

    def paths(self):
        self.assert_exit(0, self.staged)
        return {entry["name"]: entry["path"] for entry in json.loads(self.staged.out)["entries"]}

    def test_every_path_is_one_on_the_nodes_own_disk(self):
        for path in self.paths().values():
            self.assertTrue(path.startswith(self.stage), path)

    def test_every_node_has_every_byte(self):
        files = files_at(self.paths())
        outcome = self.job.srun("--mpi=none", "--ntasks-per-node=1", "sha256sum", *files)
        self.assert_exit(0, outcome)
        lines = sorted(outcome.out.splitlines())
        self.assertEqual(lines, sorted(f"{sha256}  {path}" for path, sha256 in files.items() for _ in NODES))

    def test_the_shared_storage_is_read_once(self):
        stage = json.loads(self.staged.out)["stage"]
        self.assertEqual([node["node"].split(".")[0] for node in stage["nodes"]], NODES)
        total = sum(file.size for file in WANTED)
        self.assertEqual(stage["bytes_read"], total)
        self.assertEqual([node["bytes"] for node in stage["nodes"]], [total] * len(NODES))
        if self.read_before is not None:
            self.assertLess(self.read_after - self.read_before, total / 10)

    def test_again_nothing_is_read(self):
        again = self.job.fvprefetch(*MpiJob.SRUN, arguments=["--stage", self.stage, "--json"])
        self.assert_exit(0, again)
        self.assertEqual(json.loads(again.out)["stage"]["bytes_read"], 0)


class NameThatWasLookedFor(ClusterCase):
    """The NFS client of a node remembers for half a minute that a name is not there."""

    def test_no_rank_returns_before_its_node_sees_the_file(self):
        job = Job("NameThatWasLookedFor")
        models = job.folder / "eval/models"
        models.mkdir(parents=True)
        wanted, other = models / "linear-head.pth", models / "other"
        on_node_2 = ["--mpi=none", "-N1", "-n1", "-w", NODES[1], "sh", "-c"]
        looked = job.srun(*on_node_2, f"ls {models}; test ! -e {wanted} && test ! -e {other}")
        self.assert_exit(0, looked)
        # Whether it does remember is the kernel's to decide.
        self.assert_exit(0, job.srun("--mpi=none", "-N1", "-n1", "-w", NODES[0], "touch", other))
        remembers = job.srun(*on_node_2, f"test -e {other}").code != 0
        print(f"a name that was looked for: {'not seen' if remembers else 'seen'} after it was made", flush=True)
        ranks = job.srun(*MpiJob.SRUN, "sh", "-c",
                         f"{FVPREFETCH} --mpi on {job.manifest} > /dev/null && sha256sum {wanted}")
        self.assert_exit(0, ranks)
        self.assertEqual(ranks.out.splitlines(), [f"{LINEAR_HEAD.sha256}  {wanted}"] * 4)


class CacheThatWasRemovedElsewhere(ClusterCase):
    """The NFS client of a node goes on telling of a file for seconds after another node has removed it."""

    def test_is_filled_again(self):
        job = Job("CacheThatWasRemovedElsewhere")
        first = job.fvprefetch(*MpiJob.SRUN)
        self.assert_exit(0, first)
        for cache in ("eval", "hub"):
            shutil.rmtree(job.folder / cache)
        again = job.fvprefetch(*MpiJob.SRUN)
        self.assert_exit(0, again)
        self.assertEqual(again.out, first.out)
        self.assertIn(f"{len(manifest_entries(HUB.url))} fetched", again.err)


class LockOnlyJob(ColdJob):
    """Slurm started the processes, but this Open MPI would abort in MPI_Init."""

    def test_one_line_names_the_remedy(self):
        lines = [line for line in self.cold.err.splitlines() if "--mpi=pmix" in line]
        self.assertEqual(len(lines), 1, str(self.cold))

    def test_one_rank_asks_the_hub_for_all(self):
        asked = {path: counts["requests"] for path, counts in self.stats["by_path"].items() if "/api/" in path}
        self.assertEqual(set(asked.values()), {1}, asked)
        self.assertIn(f"{len(manifest_entries(HUB.url))} fetched", self.cold.err)  # by the rank that speaks

    def test_a_warm_run_sends_no_request_and_writes_nothing(self):
        caches = [self.job.folder / cache for cache in ("hub", "eval")]
        def state():
            return {path: path.lstat().st_ctime_ns for cache in caches for path in cache.rglob("*")}
        before = state()
        HUB.reset()
        warm = self.job.fvprefetch(*self.SRUN)
        self.assert_exit(0, warm)
        self.assertEqual(warm.out, self.cold.out)
        self.assertEqual(HUB.stats()["requests"], 0)
        self.assertEqual(state(), before)


class JobWithoutPmi(LockOnlyJob, ClusterCase):
    SRUN = ["--mpi=none", "--ntasks-per-node=2", "-K1"]


class JobWithPmi2(LockOnlyJob, ClusterCase):
    SRUN = ["--mpi=pmi2", "--ntasks-per-node=2", "-K1"]


class SixteenProcessesWithoutPmi(LockOnlyJob, ClusterCase):
    SRUN = ["--mpi=none", "--ntasks-per-node=8", "--overcommit", "-K1"]


class Doctor(ClusterCase):
    """What the nodes have in common is found out by trying."""

    def test_it_finds_which_locks_hold_between_the_nodes(self):
        job = Job("Doctor")
        for cache in ("eval", "hub"):
            (job.folder / cache).mkdir()
        HUB.reset()
        outcome = job.srun("--ntasks-per-node=2", "-K1", FVPREFETCH, "doctor", "--json")
        self.assert_exit(0, outcome)
        found = json.loads(outcome.out)
        self.assertEqual([node["node"].split(".")[0] for node in found["nodes"]], NODES, outcome.out)
        self.assertEqual(found["launcher"]["ranks"], 4)
        locks, same = found["locks"]
        self.assertEqual((locks["between"], same["same_as"]), ("nodes", "eval cache"))
        verdicts = {tried["name"]: tried["verdict"] for tried in locks["primitives"]}
        self.assertEqual(verdicts, dict.fromkeys(["flock", "OFD", "link", "mkdir"], "excludes"), outcome.out)
        self.assertIsNotNone(locks["new_name"]["looked_afresh_ms"], outcome.out)
        self.assertEqual(HUB.stats()["requests"], 0)
        self.assertEqual([path for cache in ("eval", "hub") for path in (job.folder / cache).iterdir()], [])

    def test_caches_that_each_node_has_for_itself_are_exit_14(self):
        job = Job("Doctor.apart")
        job.environment["FASTVIDEO_EVAL_CACHE"] = "/tmp/fvprefetch-doctor-apart"
        outcome = job.srun("--ntasks-per-node=1", FVPREFETCH, "doctor")
        self.assert_exit(14, outcome)
        self.assertIn("is not shared", outcome.out)
        self.assertIn(NODES[1], outcome.out)


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
        outcome = job.srun("--ntasks-per-node=4", "-K0", WRAPPER, "--codes", job.folder, FVPREFETCH, job.manifest)
        self.assert_exit(0, outcome)
        codes = [(job.folder / str(rank)).read_text() for rank in range(self.RANKS)]
        self.assertEqual(codes, ["5\n"] * self.RANKS, str(outcome))
        self.assertIn("gone.pth", outcome.err)
        self.assert_nothing_left(job)

    def test_every_rank_ends_with_exit_5_without_mpi_too(self):
        job = self.job_with_404("FailingEntry.files")
        outcome = job.srun("--mpi=none", "--ntasks-per-node=2", "-K0", WRAPPER, "--codes", job.folder, FVPREFETCH,
                           job.manifest)
        self.assert_exit(0, outcome)
        codes = [(job.folder / str(rank)).read_text() for rank in range(4)]
        self.assertEqual(codes, ["5\n"] * 4, str(outcome))
        self.assertEqual(outcome.err.count("error:"), 1, str(outcome))
        self.assert_nothing_left(job)

    def test_srun_exits_5_without_mpi_too(self):
        # -K1: Slurm ends the others as soon as rank 0 has ended, and they still know why.
        outcome = self.job_with_404("FailingEntry.files.srun").fvprefetch("--mpi=none", "--ntasks-per-node=2", "-K1")
        self.assert_exit(5, outcome)

    def test_srun_exits_5(self):
        job = self.job_with_404("FailingEntry.srun")
        outcome = job.fvprefetch("--ntasks-per-node=4", "-K1")
        self.assert_exit(5, outcome)
        self.assert_nothing_left(job)


class BatchScripts(ClusterCase):
    """The scripts in slurm/ as a user submits them. What they take from the environment of sbatch: FVPREFETCH,
    MANIFEST, the two caches, and EVAL, the command to run when everything is there, with the exports of
    `fvprefetch env`."""

    def submit(self, job, script, *options, tasks=1, **environment):
        evaluation = job.folder / "evaluation"
        evaluation.write_text('#!/bin/sh\necho "caches: $HF_HUB_CACHE $FASTVIDEO_EVAL_CACHE"\n'
                              f"exec {shlex.join(map(str, job.reader_command()))}\n")
        evaluation.chmod(0o755)
        HUB.reset()
        submitted = job.run("sbatch", "--parsable", *options, SLURM_SCRIPTS / script, FVPREFETCH=FVPREFETCH,
                            MANIFEST=job.manifest, EVAL=evaluation, **environment)
        self.assert_exit(0, submitted)
        states = on_cluster.wait_for_job(submitted.out.strip())
        output = {file.name: file.read_text() for file in sorted(job.folder.glob("output.*"))}
        self.assertEqual(states, ["COMPLETED"] * tasks, "".join(f"\n--- {k}\n{v}" for k, v in output.items()))
        return output

    def test_prefetch_then_evaluate(self):
        job = Job("BatchScripts.prefetch")
        output = self.submit(job, "prefetch.sbatch", "--nodes=2", "--ntasks-per-node=2",
                             f"--output={job.folder}/output.0")
        self.assert_each_body_sent_once(HUB.stats())
        self.assert_both_nodes_report(output["output.0"])

    def test_stage_then_evaluate(self):
        missing = {"name": "missing", "source": f"{HUB.url}/files/missing.pth", "optional": True}  # exit 3: a success
        job = Job("BatchScripts.stage", [*manifest_entries(HUB.url), missing])
        stage = "/local/BatchScripts.stage"
        output = self.submit(job, "stage-and-evaluate.sbatch", "--nodes=2", "--ntasks-per-node=2",
                             f"--output={job.folder}/output.0", STAGE=stage)["output.0"]
        self.assert_each_body_sent_once(HUB.stats())
        self.assertEqual(output.count(f"caches: {stage}/hub {stage}/eval\n"), 4, output)
        self.assert_both_nodes_report(output)
        for node in NODES:
            self.assert_exit(0, job.srun("--mpi=none", "-N1", "-n1", "-w", node, "test", "!", "-e", stage))

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


class SlowStaging:
    """A job whose staging takes long enough to be ended in the middle of it: one file, and a slow link out of the node
    that sends. For a ClusterCase; only where nodes have kernels, and so links, of their own."""

    SIZE = 32 << 20
    LINK = "16mbit"  # 16 s for the file

    def setUp(self):
        if on_cluster.OPTIONS.flavour != "nfs":
            self.skipTest("the nodes are one kernel")
        content = random.Random(self.id()).randbytes(self.SIZE)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.job = Job(self.id().split(".")[-1], [{"name": "large.bin", "source": f"{HUB.url}/files/large.bin",
                                                   "sha256": self.sha256, "size": self.SIZE}])
        self.stage = f"/local/{self.job.folder.name}"
        models = self.job.folder / "eval/models"
        models.mkdir(parents=True)
        (models / "large.bin").write_bytes(content)  # as if it had been downloaded before
        self.on_node(0, "modprobe sch_tbf && tc qdisc add dev vec0 root tbf rate " + self.LINK + " burst 64kb latency 2s")
        self.addCleanup(self.on_node, 0, "tc qdisc del dev vec0 root")

    def on_node(self, node, script, code=0):
        outcome = self.job.srun("--mpi=none", "-N1", "-n1", "-w", NODES[node], "sh", "-c", script)
        self.assert_exit(code, outcome)
        return outcome.out

    def begin(self, name, *options):
        """A batch job that stages, in the middle of it: its number."""
        script = self.job.folder / f"{name}.sh"
        words = ["srun", "-K1", "--ntasks-per-node=2", FVPREFETCH, self.job.manifest, "--stage", self.stage, *options]
        script.write_text(f"#!/bin/sh\ncd {self.job.folder}\n{shlex.join(map(str, words))} 2> {name}.err\n"
                          f"echo $? > {name}.code\n")
        submitted = self.job.run("sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=2",
                                 f"--output={self.job.folder}/{name}.out", script)
        self.assert_exit(0, submitted)
        partial = f"find {self.stage} -name '*.fvprefetch-part' -size +1024k 2> /dev/null"
        waiting = f'for i in $(seq 150); do [ -n "$({partial})" ] && exit 0; sleep 0.2; done; exit 1'
        begun = self.job.srun("--mpi=none", "-N1", "-n1", "-w", NODES[1], "sh", "-c", waiting)
        self.assertEqual(begun.code, 0, self.told(name))
        return submitted.out.strip()

    def told(self, name):
        return (self.job.folder / f"{name}.err").read_text()

    def files(self, node):
        """What lies in the stage of the node, for consumers: file -> sha256."""
        found = self.on_node(node, f"cd {self.stage} && find . -type f -not -path '*/.fvprefetch/*' | xargs -r sha256sum")
        return {path: digest for digest, path in map(str.split, found.splitlines())}


class StagingThatIsCancelled(SlowStaging, ClusterCase):
    def test_scancel_in_the_middle_of_staging(self):
        number = self.begin("first")
        self.assert_exit(0, run(["scancel", "--signal=TERM", number]))  # to the step, as before a time limit
        on_cluster.wait_for_job(number)
        self.assertEqual((self.job.folder / "first.code").read_text().strip(), "143", self.told("first"))
        # Whole, or not there.
        for node in range(len(NODES)):
            self.assertLessEqual(self.files(node).items(), {"./eval/models/large.bin": self.sha256}.items())
        again = self.job.fvprefetch(*MpiJob.SRUN, arguments=["--stage", self.stage])
        self.assert_exit(0, again)
        for node in range(len(NODES)):
            self.assertEqual(self.files(node), {"./eval/models/large.bin": self.sha256})


class JobThatIsRequeued(ClusterCase):
    def test_it_goes_on_where_it_was(self):
        job = Job("JobThatIsRequeued")
        script = job.folder / "job.sh"
        script.write_text(f"#!/bin/sh\nsrun -K1 --ntasks-per-node=2 {FVPREFETCH} {job.manifest}\n"
                          f"echo $? > {job.folder}/code.${{SLURM_RESTART_COUNT:-0}}\n")
        HUB.reset()
        submitted = job.run("sbatch", "--parsable", "--requeue", "--nodes=2", "--ntasks-per-node=2",
                            f"--output={job.folder}/output", script)
        self.assert_exit(0, submitted)
        number = submitted.out.strip()
        self.wait_until_it_downloads()
        deadline = time.monotonic() + on_cluster.STEP_TIMEOUT
        self.assert_exit(0, run(["scontrol", "requeue", number]))
        while "PENDING" not in run(["scontrol", "--oneliner", "show", "job", number]).out:
            self.assertLess(time.monotonic(), deadline, "it is not put back into the queue")
            time.sleep(0.1)
        run(["scontrol", "update", f"JobId={number}", "StartTime=now"])  # not minutes later
        self.assertEqual(on_cluster.wait_for_job(number), ["COMPLETED"])
        self.assertEqual((job.folder / "code.1").read_text().strip(), "0", (job.folder / "output").read_text())
        sent = HUB.stats()["body_bytes"]
        total = sum(file.size for file in WANTED)
        self.assertGreaterEqual(sent, total)
        # What had been written is not sent again; what a connection had in flight may be.
        self.assertLess(sent, total + SHARD_1.size // 2)
        self.assert_exit(0, job.read_offline())


class FileServerThatRestarts(ClusterCase):
    def test_in_the_middle_of_a_download(self):
        if on_cluster.OPTIONS.flavour != "nfs":
            self.skipTest("GlusterFS has no server of its own here")
        job = Job("FileServerThatRestarts")
        HUB.reset()
        running = job.start("srun", "--nodes=2", *MpiJob.SRUN, FVPREFETCH, job.manifest)
        self.addCleanup(running.kill)
        self.wait_until_it_downloads()
        subprocess.run(["pkill", "-KILL", "-x", "ganesha.nfsd"], check=True)  # it is started again at once
        self.assert_exit(0, running.wait())
        self.assert_each_body_sent_once(HUB.stats())
        self.assert_exit(0, job.read_offline(self.paths_in(running.out)))


class NodeThatDies(SlowStaging, ClusterCase):
    """The last one: the node does not come back."""

    def test_in_the_middle_of_staging(self):
        # Longer than the link takes for the 16 MiB that are under way: a heartbeat may be behind them.
        number = self.begin("first", "--rank-timeout", "20s")
        self.addCleanup(run, ["scancel", number])
        subprocess.run(["pkill", "-KILL", "-f", "fvid=2( |$)"], check=True)
        died = time.monotonic()
        while "no heartbeat from node" not in self.told("first"):
            self.assertLess(time.monotonic() - died, on_cluster.STEP_TIMEOUT, self.told("first"))
            time.sleep(0.1)
        print(f"told {time.monotonic() - died:.1f} s after the node's death", flush=True)
        self.assertIn(f"node {NODES[1]}", self.told("first"))
        # The other node goes on without it, and what it has is right.
        alone = self.job.run("srun", "--mpi=none", "-N1", "-n1", "-w", NODES[0], FVPREFETCH, self.job.manifest, "--stage",
                             self.stage)
        self.assert_exit(0, alone)
        self.assertEqual(self.files(0), {"./eval/models/large.bin": self.sha256})


def load_tests(loader, tests, pattern):
    cases = [MpiJob, StagedJob, NameThatWasLookedFor, JobWithoutPmi, JobWithPmi2, SixteenProcessesWithoutPmi, Doctor, FailingEntry,
             BatchScripts, StagingThatIsCancelled, JobThatIsRequeued, FileServerThatRestarts,
             NodeThatDies]
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)


if __name__ == "__main__":
    on_cluster.main(__file__, name="slurm", description=__doc__, nodes={"nfs": len(NODES), "gluster": len(NODES)},
                    programs=["fvprefetch", "fvprefetch-mpi.so", "tests/testhub", "tests/wrappers/apptainer"],
                    modules=["huggingface_hub"])
