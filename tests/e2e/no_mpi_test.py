"""Without MPI the file lock alone does it: job arrays, launchers that this MPI cannot speak to, and
the build that has no MPI in it."""

import json
import subprocess

import harness


class NoMpi(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.data = self.hub.put("files/a.pth", b"\x05a" * 200_000)
        self.weights = self.hub.put("models/org/model/weights.safetensors", b"\x06w" * 200_000)
        self.hub.put("models/org/model/config.json", b"{}\n")
        self.path = self.manifest(
            [{"name": "a.pth", "source": self.hub.file_url("a.pth")}, {"name": "model", "source": "org/model"}]
        )

    def together(self, environments):
        """Starts one process per environment at once; returns (code, stdout, stderr) of each."""
        processes = [self.start(self.path, env=env) for env in environments]
        ends = []
        for process in processes:
            out, err = process.communicate(timeout=harness.PATIENCE)
            ends.append((process.returncode, out, err))
        return ends

    def check_one_download(self):
        self.assertEqual(self.hub.stats()["body_bytes"], self.site_bytes())
        self.assertEqual((self.eval_cache / "models/a.pth").read_bytes(), self.data)
        self.assertEqual(self.unfinished(), [])

    def test_sixteen_processes_at_once_download_once(self):
        # Slow enough that all sixteen are there while the first one holds the lock.
        self.hub.faults({"path": "*", "kind": "throttle", "bytes_per_second": 400_000})
        ends = self.together([{}] * 16)
        self.assertEqual([code for code, _, _ in ends], [0] * 16)
        self.assertEqual(len({out for _, out, _ in ends}), 1)  # array tasks: each prints, all the same
        self.check_one_download()

    def srun_without_pmi(self, rank, **more):
        self.be_launcher()
        return {
            "SLURM_JOB_ID": "77", "SLURM_JOBID": "77", "SLURM_STEP_ID": "0", "SLURM_STEPID": "0",
            "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
            "SLURM_STEP_NODELIST": "localhost", **more,
        }

    def check_lock_only(self, ends):
        self.assertEqual([code for code, _, _ in ends], [0] * 4, ends)
        self.assertEqual([bool(out) for _, out, _ in ends], [True, False, False, False])
        told = [err for _, _, err in ends if "--mpi=pmix" in err]
        self.assertEqual(len(told), 1, ends)
        self.assertIn(told[0], ends[0])
        self.check_one_download()

    def test_srun_without_a_pmi_server_never_enters_mpi_and_names_the_remedy(self):
        # Under these variables Open MPI 4 ends the process inside MPI_Init.
        self.check_lock_only(self.together([self.srun_without_pmi(r, SLURM_MPI_TYPE="none") for r in range(4)]))

    def test_srun_with_pmi2_never_enters_mpi_and_names_the_remedy(self):
        environments = [
            self.srun_without_pmi(r, SLURM_MPI_TYPE="pmi2", PMI_RANK=str(r), PMI_SIZE="4", PMI_FD="99")
            for r in range(4)
        ]
        self.check_lock_only(self.together(environments))

    def test_require_mpi_ends_with_13_before_any_request(self):
        process = self.start(self.path, "--require-mpi", env=self.srun_without_pmi(0, SLURM_MPI_TYPE="none"))
        _, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 13, err)
        self.assertIn("--mpi=pmix", err)
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_a_single_process_does_not_load_mpi(self):
        traced = self.fvp(self.path, env={"LD_DEBUG": "libs"})
        self.assert_ok(traced)
        self.assertIn("libcurl", traced.stderr)
        self.assertNotIn("libmpi", traced.stderr)

    def test_the_build_without_mpi_does_the_same_and_links_no_mpi(self):
        harness_command = self.command
        self.command = lambda: str(harness.BUILD / "no-mpi/fvprefetch")
        try:
            libraries = subprocess.run(["ldd", self.command()], capture_output=True, text=True, check=True).stdout
            self.assertNotIn("mpi", libraries)
            ends = self.together([{}] * 4)
            self.assertEqual([code for code, _, _ in ends], [0] * 4, ends)
            self.check_one_download()
            report = json.loads(self.fvp(self.path, "--json").stdout)
            self.assertEqual([e["state"] for e in report["entries"]], ["hit", "hit"])
        finally:
            self.command = harness_command


if __name__ == "__main__":
    harness.main()
