"""Several processes of one step without MPI: rank 0 works, all return its result, over files in the cache."""

import json
import os
import signal
import time

import harness


class FileBarrier(harness.EndToEnd):
    RANKS = 4

    def setUp(self):
        super().setUp()
        self.be_launcher()
        self.data = self.hub.put("files/a.pth", b"\x05a" * 200_000)
        self.hub.put("models/org/model/weights.safetensors", b"\x06w" * 200_000)
        self.hub.put("models/org/model/config.json", b"{}\n")
        self.entries = [{"name": "a.pth", "source": self.hub.file_url("a.pth")}, {"name": "model", "source": "org/model"}]
        self.path = self.manifest(self.entries)
        missing = {"name": "gone.pth", "source": self.hub.file_url("gone.pth")}
        self.gone = self.manifest([*self.entries, missing], "gone.json")
        self.steps = self.eval_cache / ".fvprefetch/steps"

    def rank(self, rank, *arguments, path=None, **more):
        """One process of `srun --mpi=none`, started in the background."""
        return self.start(path or self.path, *arguments, env={
            "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(self.RANKS), "SLURM_NTASKS": "4",
            "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
            "SLURM_MPI_TYPE": "none", **more,
        })  # fmt: skip

    def ends(self, processes):
        """(code, stdout, stderr) of each."""
        ends = []
        for process in processes:
            out, err = process.communicate(timeout=harness.PATIENCE)
            ends.append((process.returncode, out, err))
        return ends

    def step(self, *arguments, **more):
        return self.ends([self.rank(r, *arguments, **more) for r in range(self.RANKS)])

    def codes(self, ends):
        return [code for code, _, _ in ends]

    def records(self):
        return [p.name for p in self.steps.iterdir()] if self.steps.exists() else []

    def caches(self):
        """ctime changes with any write, chmod or rename."""
        return {p: p.lstat().st_ctime_ns for root in (self.hf_cache, self.eval_cache) for p in root.rglob("*")}

    def slowly(self):
        """Slow enough that all are there while the first one downloads."""
        self.hub.faults({"path": "*", "kind": "throttle", "bytes_per_second": 400_000})

    def waiting_line(self, process):
        for line in process.stderr:
            if "waiting for" in line:
                return line
        return f"none, and exit {process.wait()}"

    def wait_for_first_bytes(self):
        self.wait_for("bytes of a.pth", lambda: any(p.stat().st_size for p in self.eval_cache.glob("models/.a.pth.*")))

    def wait_until_led(self):
        self.wait_for("rank 0's lease", lambda: any(name.endswith(".lease") for name in self.records()))

    # --- cold and warm ---------------------------------------------------------------------------

    def test_one_rank_asks_and_downloads_for_all(self):
        self.slowly()
        ends = self.step()
        self.assertEqual(self.codes(ends), [0] * self.RANKS, ends)
        self.assertEqual([bool(out) for _, out, _ in ends], [True, False, False, False])
        self.assertEqual(list(self.paths(ends[0][1])), ["a.pth", "model"])
        self.assertEqual(sum("--mpi=pmix" in err for _, _, err in ends), 1, ends)
        stats = self.hub.stats()
        self.assertEqual(stats["body_bytes"], self.site_bytes())
        self.assertEqual(stats["api_requests"], 2)  # the revision and the tree, for all ranks together
        self.assertIn("2 fetched", ends[0][2])
        (record,) = self.records()
        self.assertRegex(record, r"^77\.0\.0\.[0-9a-f]{12}\.json$")
        self.assertEqual(json.loads((self.steps / record).read_text())["status"], "ok")

    def test_a_warm_step_writes_nothing_and_asks_nothing(self):
        self.assert_ok(self.fvp(self.path))
        for lock in self.dir.rglob("*.lock"):
            lock.unlink()
        self.hub.reset()
        before = self.caches()
        ends = self.step()
        self.assertEqual(self.codes(ends), [0] * self.RANKS, ends)
        self.assertIn("2 hits", ends[0][2])
        self.assertEqual(self.caches(), before)
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_refresh_is_one_request_for_all(self):
        self.assert_ok(self.fvp(self.path))
        self.hub.reset()
        for _ in range(2):  # the second time the record of the first lies there
            self.assertEqual(self.codes(self.step("--refresh")), [0] * self.RANKS)
        self.assertEqual(self.hub.stats()["requests"], 2)

    def test_the_build_without_mpi_does_the_same(self):
        self.command = lambda: str(harness.BUILD / "no-mpi/fvprefetch")
        self.slowly()
        self.assertEqual(self.codes(self.step()), [0] * self.RANKS)
        self.assertEqual(self.hub.stats()["api_requests"], 2)

    def check_wrong_pair(self, told):
        self.slowly()
        ends = self.ends([self.start(self.path, env={"PMIX_NAMESPACE": "prte-n1-42@2", "PMIX_RANK": str(r), **told(r)}) for r in range(self.RANKS)])
        self.assertEqual(self.codes(ends), [0] * self.RANKS, ends)
        self.assertEqual([bool(out) for _, out, _ in ends], [True, False, False, False])
        self.assertEqual(self.hub.stats()["api_requests"], 2)
        self.assertEqual(self.hub.stats()["body_bytes"], self.site_bytes())
        return ends[0][2]

    def test_a_wrong_pair_where_each_is_rank_0_of_1_meets_over_files(self):
        # MPI starts, and finds no server of a kind that it can speak to.
        err = self.check_wrong_pair(lambda r: {"OMPI_COMM_WORLD_RANK": str(r), "OMPI_COMM_WORLD_SIZE": str(self.RANKS)})
        self.assertIn("MPI sees 1 process where the launcher (openmpi) started 4", err)

    def test_so_does_one_whose_size_nobody_tells(self):
        self.check_wrong_pair(lambda r: {})

    def test_required_mpi_ends_every_rank_with_13_before_any_request(self):
        ends = self.step("--require-mpi")
        self.assertEqual(self.codes(ends), [13] * self.RANKS, ends)
        self.assertEqual([bool(err) for _, _, err in ends], [True, False, False, False])
        self.assertEqual(self.hub.stats()["requests"], 0)
        self.assertFalse(self.eval_cache.exists())

    # --- failure ---------------------------------------------------------------------------------

    def test_a_failure_of_rank_0_is_every_ranks_at_once(self):
        others = [self.rank(r, path=self.gone) for r in range(1, self.RANKS)]
        begin = time.monotonic()
        ends = self.ends([self.rank(0, path=self.gone), *others])
        self.assertLess(time.monotonic() - begin, 5)
        self.assertEqual(self.codes(ends), [5] * self.RANKS, ends)
        self.assertIn("gone.pth", ends[0][2])
        self.assertEqual([err for _, _, err in ends[1:]], [""] * (self.RANKS - 1))
        self.assertEqual(self.hub.stats()["api_requests"], 2)

    def test_a_manifest_that_cannot_be_read_ends_every_rank_alike(self):
        bad = self.dir / "bad.json"
        bad.write_text("{")
        self.assertEqual(self.codes(self.step(path=bad)), [2] * self.RANKS)
        self.assertFalse(self.eval_cache.exists())

    def test_one_that_comes_late_gets_the_failure_too(self):
        first = self.ends([self.rank(0, path=self.gone)])
        late = self.ends([self.rank(1, path=self.gone)])
        self.assertEqual(self.codes(first + late), [5, 5])

    def test_a_failure_is_returned_once_and_not_taken_for_that_of_the_next_run(self):
        # As in `until fvprefetch ...; do sleep 30; done` on every rank.
        self.assertEqual(self.codes(self.step(path=self.gone)), [5] * self.RANKS)
        self.hub.put("files/gone.pth", b"\x07g" * 100)
        others = [self.rank(r, "--verbose", path=self.gone) for r in range(1, self.RANKS)]
        for process in others:
            self.assertIn("waiting for rank 0 of step 77.0.0", self.waiting_line(process))
        self.assertEqual(self.codes(self.ends([self.rank(0, path=self.gone), *others])), [0] * self.RANKS)

    def test_a_requeued_job_does_not_look_at_its_first_run(self):
        self.assertEqual(self.codes(self.step(path=self.gone)), [5] * self.RANKS)
        self.hub.put("files/gone.pth", b"\x07g" * 100)
        ends = self.step(path=self.gone, SLURM_RESTART_COUNT="1")
        self.assertEqual(self.codes(ends), [0] * self.RANKS, ends)

    def test_two_manifests_side_by_side_in_one_step_do_not_meet(self):
        self.slowly()
        other = self.manifest(self.entries[:1], "other.json")
        ends = self.ends([self.rank(r, path=p) for p in (self.gone, other) for r in range(self.RANKS)])
        self.assertEqual(self.codes(ends), [5] * self.RANKS + [0] * self.RANKS, ends)

    # --- rank 0 is not there ---------------------------------------------------------------------

    def test_when_rank_0_is_killed_another_one_goes_on(self):
        self.hub.faults({"path": "/files/a.pth", "kind": "stall", "after_bytes": 100, "times": 1})
        first, *others = [self.rank(r) for r in range(self.RANKS)]
        self.wait_for_first_bytes()
        first.kill()
        ends = self.ends([first, *others])
        self.assertEqual(self.codes(ends), [-signal.SIGKILL, 0, 0, 0], ends)
        self.assertEqual((self.eval_cache / "models/a.pth").read_bytes(), self.data)
        self.assertEqual([name for name in self.records() if not name.endswith(".json")], [])

    def test_a_signal_to_rank_0_ends_every_rank_with_it(self):
        self.hub.faults({"path": "/files/a.pth", "kind": "stall", "after_bytes": 100})
        first, *others = [self.rank(r) for r in range(self.RANKS)]
        self.wait_for_first_bytes()
        first.terminate()
        ends = self.ends([first, *others])
        self.assertEqual(self.codes(ends), [143] * self.RANKS, ends)

    def test_the_signal_of_srun_k1_does_not_hide_why_rank_0_has_ended(self):
        # Rank 0 ends with 5, and Slurm sends SIGTERM to all others at once.
        self.hub.faults({"path": "/files/gone.pth", "kind": "delay", "seconds": 1})
        others = [self.rank(r, path=self.gone) for r in range(1, self.RANKS)]
        first = self.ends([self.rank(0, path=self.gone)])
        for process in others:
            process.terminate()
        self.assertEqual(self.codes(first + self.ends(others)), [5] * self.RANKS)

    def test_nobody_waits_for_a_rank_0_that_never_comes(self):
        ends = self.ends([self.rank(r, "--lease-timeout", "1s") for r in range(1, self.RANKS)])
        self.assertEqual(self.codes(ends), [0] * (self.RANKS - 1), ends)
        self.assertEqual(self.hub.stats()["body_bytes"], self.site_bytes())
        self.assertEqual(self.hub.stats()["api_requests"], 2)

    def test_who_waits_says_on_whom_and_no_longer_than_he_may(self):
        self.hub.faults({"path": "/files/a.pth", "kind": "stall", "after_bytes": 100})
        first = self.rank(0)
        self.wait_until_led()
        ((code, _, err),) = self.ends([self.rank(1, "--verbose", "--lock-timeout", "3s")])
        self.assertEqual(code, 11, err)
        self.assertRegex(err, rf"waiting for the result of step 77\.0\.0, held by \S+ pid {first.pid} .*job 77\.0")
        self.assertEqual(err.count("error:"), 1)

    # --- where there is no meeting ---------------------------------------------------------------

    def test_where_no_record_can_be_written_each_works_for_itself(self):
        self.steps.parent.mkdir(parents=True)
        self.steps.write_text("")  # as root any directory may be written
        self.slowly()
        ends = self.step()
        self.assertEqual(self.codes(ends), [0] * self.RANKS, ends)
        self.assertEqual(self.hub.stats()["body_bytes"], self.site_bytes())

    def test_a_record_that_cannot_be_read_is_none(self):
        self.assertEqual(self.codes(self.step()), [0] * self.RANKS)
        (record,) = self.records()
        (self.steps / record).write_text("{}")
        (self.eval_cache / "models/a.pth").unlink()
        self.assertEqual(self.codes(self.step()), [0] * self.RANKS)
        self.assertEqual((self.eval_cache / "models/a.pth").read_bytes(), self.data)

    def test_prune_removes_records_that_are_a_day_old(self):
        self.step(path=self.gone)
        self.assertEqual(len(self.records()), self.RANKS + 1)  # the record, and that each rank has returned it
        self.assert_ok(self.fvp("prune"))
        self.assertEqual(len(self.records()), self.RANKS + 1)
        for path in self.steps.iterdir():
            then = time.time() - 24 * 3600 - 60
            os.utime(path, (then, then))
        self.assert_ok(self.fvp("prune"))
        self.assertEqual(self.records(), [])


if __name__ == "__main__":
    harness.main()
