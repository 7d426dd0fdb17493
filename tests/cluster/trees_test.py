#!/usr/bin/env python3
"""Who started the command, as tests/trees has it, below a real Slurm: two nodes, four tasks, each of srun's --mpi.

    python3 tests/cluster/trees_test.py --build-dir build --venv VENV [unittest arguments]

Rows of the table go to BUILD/tests/trees/summary.txt. The MPI is Debian's Open MPI, which speaks PMIx alone.
"""

import json

import cluster_test
import on_cluster
from cluster_test import ClusterCase, Job, WRAPPER, manifest_entries
from on_cluster import BIN, FVPREFETCH

MPI_PROGRAM = BIN / "mpi_program"
TASKS = ["--ntasks-per-node=2"]
RANKS = 4
KINDS = ("pmix", "pmi2", "none")
K1_RUNS = 12  # 143 in 5 of 12 was seen

WORKERS = """
import os, subprocess
rank, out = os.environ["SLURM_PROCID"], os.environ["OUT"]
workers = [subprocess.Popen([os.environ["FVP"], os.environ["M"], *os.environ["ARGS"].split()],
                            env={**os.environ, "LOCAL_RANK": str(local)}, stdout=open(f"{out}/out.{rank}.{local}", "w"))
           for local in range(4)]
for local, worker in enumerate(workers):
    code = worker.wait()
    with open(f"{out}/code.{rank}.{local}", "w") as file:
        print(code, file=file)
"""


def setUpModule():
    cluster_test.setUpModule()
    on_cluster.copy_to_nodes(on_cluster.OPTIONS.build_dir / "tests/trees/mpi_program")


def note(kind, tree, mpi, codes, bodies):
    row = f"{'srun ' + kind:9} {tree:44} MPI {mpi:5} exit {codes:18} {bodies}"
    print(row, flush=True)
    table = on_cluster.OPTIONS.build_dir / "tests/trees/summary.txt"
    table.parent.mkdir(exist_ok=True)
    with open(table, "a") as out:
        out.write(f"trees: {row}\n")


class Tree(ClusterCase):
    def setUp(self):
        self.runs = 0

    def job(self, kind):
        cluster_test.HUB.reset()
        name = f"{self.id().split('.')[-1]}.{kind}"
        job = Job(name)
        entries = manifest_entries(cluster_test.HUB.url)
        self.entries = [entries[:3], entries[3:]]
        self.manifests = []
        for i, each in enumerate(self.entries):
            self.manifests.append(job.folder / f"manifest{i}.json")
            self.manifests[-1].write_text(json.dumps({"version": 1, "entries": each}))
        return job

    def srun(self, job, kind, *command, tasks=TASKS, args=(), options=("-K0",)):
        self.runs += 1
        self.out = job.folder / f"out{self.runs}"
        self.out.mkdir()
        told = {"FVP": FVPREFETCH, "M": job.manifest, "M1": self.manifests[0], "M2": self.manifests[1], "OUT": self.out,
                "ARGS": " ".join(args), "MPI_PROGRAM": MPI_PROGRAM}
        return job.run("srun", "--nodes=2", f"--mpi={kind}", *options, *tasks, *command, **told)

    def left(self, pattern):
        return {path.name: path.read_text() for path in sorted(self.out.glob(pattern))}

    def assert_codes(self, names, outcome, code=0):
        self.assertEqual({name: int(text) for name, text in self.left("code.*").items()},
                         {f"code.{name}": code for name in names}, str(outcome))

    def assert_printed(self, text, entries, outcome):
        lines = [line.split("\t")[0] for line in text.splitlines() if "\t" in line]
        self.assertEqual(lines, [entry["name"] for entry in entries], f"{text}\n{outcome}")

    def sent(self):
        self.assert_each_body_sent_once(cluster_test.HUB.stats())
        cluster_test.HUB.reset()
        return "each body once"

    def ranks_of(self, text, outcome):
        """What the one report says."""
        try:
            return json.loads(text)["ranks"]
        except (ValueError, KeyError) as error:
            raise AssertionError(f"{error}: {text}\n{outcome}") from error

    # --- started by the launcher -----------------------------------------------------------------

    def direct(self, tree, *before, kinds=KINDS):
        for kind in kinds:
            with self.subTest(kind):
                job = self.job(kind)
                cold = self.srun(job, kind, *before, FVPREFETCH, job.manifest)
                self.assert_exit(0, cold)
                self.paths_in(cold.out)
                sent = self.sent()
                warm = self.srun(job, kind, *before, FVPREFETCH, job.manifest, "--json")
                self.assert_exit(0, warm)
                ranks = self.ranks_of(warm.out, warm)
                self.assertEqual(ranks, RANKS if kind == "pmix" else 1, str(warm))
                note(kind, tree, "used" if ranks > 1 else "not", "0 x4", sent)

    def test_direct_child(self):
        self.direct("direct child")

    def test_container_runtime(self):
        self.direct("apptainer", WRAPPER)

    def test_env_and_taskset(self):
        self.direct("env taskset", "env", "X=y", "taskset", "-c", "0", kinds=["pmix", "none"])

    def test_shell_with_one_command(self):
        self.direct("bash -c COMMAND", "bash", "-c", '"$0" "$@"', kinds=["pmix", "none"])

    def test_k1_without_mpi_ends_with_the_errors_own_code(self):
        gone = {"name": "gone", "source": str(on_cluster.SHARED / "gone.pth")}
        entries = [*manifest_entries(cluster_test.HUB.url)[:1], gone]
        codes = []
        for i in range(K1_RUNS):
            job = Job(f"{self.id().split('.')[-1]}.{i}", entries)
            outcome = job.run("srun", "--nodes=2", "--mpi=none", "-K1", *TASKS, FVPREFETCH, job.manifest)
            codes.append(outcome.code)
        note("none", f"-K1, an entry that is gone, {K1_RUNS} times", "not", " ".join(map(str, sorted(set(codes)))), "-")
        self.assertEqual(codes, [5] * K1_RUNS)

    # --- started by a script or a program ----------------------------------------------------------

    CALL = '"$FVP" "$%s" $ARGS > "$OUT/out.$SLURM_PROCID.%d"; echo $? > "$OUT/code.$SLURM_PROCID.%d"; '

    def test_script_with_two_calls(self):
        script = self.CALL % ("M1", 0, 0) + self.CALL % ("M2", 1, 1)
        names = [f"{rank}.{i}" for rank in range(RANKS) for i in range(2)]
        for kind in KINDS:
            with self.subTest(kind):
                job = self.job(kind)
                cold = self.srun(job, kind, "bash", "-c", script)
                self.assert_exit(0, cold)
                self.assert_codes(names, cold)
                for rank in range(RANKS):
                    for i, entries in enumerate(self.entries):
                        self.assert_printed((self.out / f"out.{rank}.{i}").read_text(), entries, cold)
                sent = self.sent()
                warm = self.srun(job, kind, "bash", "-c", script, args=["--json"])
                self.assert_codes(names, warm)
                self.assertEqual({self.ranks_of(text, warm) for text in self.left("out.*").values()}, {1}, str(warm))
                note(kind, "script: two calls", "not", "0 x8", sent)

    def test_torchrun(self):
        names = [f"{rank}.{local}" for rank in range(2) for local in range(4)]
        one_a_node = ["--ntasks-per-node=1", "--cpus-per-task=4"]
        for kind in KINDS:
            with self.subTest(kind):
                job = self.job(kind)
                cold = self.srun(job, kind, "python3", "-c", WORKERS, tasks=one_a_node)
                self.assert_exit(0, cold)
                self.assert_codes(names, cold)
                for text in self.left("out.*").values():
                    self.paths_in(text)
                note(kind, "torchrun: 2 tasks, 4 callers each", "not", "0 x8", self.sent())

    def test_rank_1_alone(self):
        script = f'if [ "$SLURM_PROCID" = 1 ]; then {self.CALL % ("M", 0, 0)} fi'
        for kind in KINDS:
            with self.subTest(kind):
                job = self.job(kind)
                outcome = self.srun(job, kind, "bash", "-c", script)
                self.assert_exit(0, outcome)
                self.assert_codes(["1.0"], outcome)
                self.paths_in((self.out / "out.1.0").read_text())
                note(kind, "script: rank 1 alone", "not", "0", self.sent())

    def test_users_mpi_program_afterwards(self):
        for kind in ["pmix"]:
            with self.subTest(kind):
                job = self.job(kind)
                outcome = self.srun(job, kind, "bash", "-c", self.CALL % ("M", 0, 0) + 'exec "$MPI_PROGRAM"')
                self.assert_exit(0, outcome)
                self.assert_codes([f"{rank}.0" for rank in range(RANKS)], outcome)
                self.assertEqual(self.left("sum.*"), {f"sum.{rank}": "6\n" for rank in range(RANKS)}, str(outcome))
                note(kind, "script: fvprefetch; mpi_program", "not", "0 x4", self.sent())

    # --- below an MPI program ---------------------------------------------------------------------

    def test_mpi_program_that_calls_it(self):
        call = '"$FVP" "$M" > "$OUT/out.$SLURM_PROCID"'
        for who, ranks in (("all", range(RANKS)), ("0", [0]), ("1", [1])):
            with self.subTest(who):
                job = self.job(f"pmix.{who}")
                outcome = self.srun(job, "pmix", MPI_PROGRAM, "--on", who, call)
                self.assert_exit(0, outcome)
                self.assert_codes(ranks, outcome)
                self.assertEqual(self.left("sum.*"), {f"sum.{rank}": "6\n" for rank in range(RANKS)}, str(outcome))
                for rank in ranks:
                    self.paths_in((self.out / f"out.{rank}").read_text())
                note("pmix", f"MPI program, {'all ranks' if who == 'all' else f'rank {who} alone'}", "not",
                     " ".join("0" for _ in ranks), self.sent())


if __name__ == "__main__":
    on_cluster.main(__file__, name="trees", description=__doc__, nodes={"nfs": 2, "gluster": 2},
                    programs=["fvprefetch", "fvprefetch-mpi.so", "tests/testhub", "tests/wrappers/apptainer",
                              "tests/trees/mpi_program"])
