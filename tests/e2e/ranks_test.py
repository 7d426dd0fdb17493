"""What happens to one rank is everybody's: a signal to any of them, a rank 0 that is silent."""

import os
import signal
import subprocess

import harness


class Ranks(harness.EndToEnd):
    RANKS = 3

    def setUp(self):
        super().setUp()
        self.data = self.hub.put("files/w.pth", os.urandom(3_000_000))
        self.hub.faults({"path": "/files/*", "kind": "throttle", "bytes_per_second": 100_000})
        self.path = self.manifest([{"name": "w", "source": self.hub.file_url("w.pth")}])
        self.file = self.eval_cache / "models/w"

    def here(self):
        """Bytes that came so far."""
        return max((p.stat().st_size for p in self.unfinished()), default=0)

    def begin(self, *args):
        self.out, wrapper = self.recording()
        before = self.here()
        command = [harness.MPIEXEC, "-n", self.RANKS, *wrapper, self.command(), self.path, *args]
        job = subprocess.Popen([str(word) for word in command], env=self.env, cwd=self.dir, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(job.communicate)
        self.addCleanup(job.kill)
        # Rank 0 is at work, and so all have met.
        self.wait_for("some bytes", lambda: self.here() > before + 50_000)
        return job

    def pid(self, rank):
        return self.pid_in(self.out, rank)

    def finish(self, job):
        out, err = job.communicate(timeout=harness.PATIENCE)
        return self.codes_in(self.out, self.RANKS), err

    def test_a_signal_to_any_rank_ends_all_with_its_code_and_what_came_stays(self):
        for rank in range(self.RANKS):
            with self.subTest(rank=rank):
                job = self.begin()
                os.kill(self.pid(rank), signal.SIGTERM)
                codes, err = self.finish(job)
                self.assertEqual(codes, [143] * self.RANKS, err)
                self.assertFalse(self.file.exists())
                self.assertTrue(self.unfinished(), "nothing is there to go on with")
        self.hub.no_faults()
        self.hub.reset()
        self.assert_ok(self.fvp(self.path))
        self.assertEqual(self.file.read_bytes(), self.data)
        self.assertLess(self.hub.stats()["body_bytes"], len(self.data))

    def test_a_rank_0_that_stands_still_is_given_up_and_named(self):
        job = self.begin("--rank-timeout", "1s")
        zero = self.pid(0)
        os.kill(zero, signal.SIGSTOP)
        try:
            _, err = self.finish(job)
        finally:
            try:
                os.kill(zero, signal.SIGKILL)  # mpirun has tried to
            except ProcessLookupError:
                pass
        self.assertEqual(job.returncode, 6, err)
        self.assertIn("no heartbeat from rank 0", err)
        self.assertFalse(self.file.exists())

    def test_a_rank_0_that_works_for_longer_than_the_timeout_is_waited_for(self):
        self.hub.faults({"path": "/files/*", "kind": "throttle", "bytes_per_second": 1_000_000})
        job = self.begin("--rank-timeout", "1s")
        codes, err = self.finish(job)
        self.assertEqual(codes, [0] * self.RANKS, err)
        self.assertEqual(self.file.read_bytes(), self.data)


if __name__ == "__main__":
    harness.main()
