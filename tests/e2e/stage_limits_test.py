"""Threads that the system does not give, while nodes copy: the ranks end alike, none is killed by its own
std::terminate, and none waits for one that has left."""

import os

import harness
import nodes


class StageLimits(nodes.OnNodes):
    RANKS = 2

    def run_without(self, thread, name):
        """Both ranks lack their `thread`-th thread; 0: none. (exit codes, stderr)"""
        for number in range(self.RANKS):
            self.node(number)
        codes, wrapper = self.recording()
        shim = ["env", f"LD_PRELOAD={harness.BUILD}/tests/shims/libfailing_thread.so", f"FVP_SHIM_THREAD={thread}",
                f"FVP_SHIM_THREAD_COUNT={self.dir}/threads"]  # fmt: skip
        done = self.run_command(
            [harness.MPIEXEC, "-n", self.RANKS, "unshare", "-m", "bash", "-c", nodes.ON_ITS_NODE, "bash", "0,1", self.dir,
             *wrapper, *shim, self.command(), self.path, "--stage", f"{self.local}/{name}", "--rank-timeout", "20s"])  # fmt: skip
        return self.codes_in(codes, self.RANKS), done.stderr

    def test_ranks_end_alike_without_any_one_thread(self):
        data = self.hub.put("files/a.pth", os.urandom(5_000_000))
        self.path = self.manifest([{"name": "a.pth", "source": self.hub.file_url("a.pth")}])
        codes, err = self.run_without(0, "all")
        self.assertEqual(codes, [0] * self.RANKS, err)
        most = int((self.dir / "threads").read_text())
        self.assertGreater(most, 3)
        ended = {}
        for thread in range(1, most + 4):  # the other rank may have more
            with self.subTest(thread=thread):
                codes, err = self.run_without(thread, f"without-{thread}")
                if "fvprefetch:" not in err:
                    continue  # one of MPI's own, without which it does not begin
                self.assertEqual(len(set(codes)), 1, f"{codes}\n{err}")
                self.assertIn(codes[0], (0, 9), err)
                ended[thread] = codes[0]
                if codes[0] == 0 and (self.node(1) / f"without-{thread}/eval/models/a.pth").exists():
                    self.assertEqual((self.node(1) / f"without-{thread}/eval/models/a.pth").read_bytes(), data)
                self.assert_nothing_private(1)
        self.assertIn(9, ended.values(), ended)  # something has failed, and was told


if __name__ == "__main__":
    harness.main()
