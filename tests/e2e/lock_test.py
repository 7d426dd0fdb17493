"""The lock is Python's lock: the same files, excluded in both directions; waiting is bounded and says
on whom."""

import json
import os
import signal
import subprocess

import harness

HOLD = """
import sys, filelock
with filelock.FileLock(sys.argv[1], mode=int(sys.argv[2], 8)):
    print("held", flush=True)
    sys.stdin.readline()
"""


class Locks(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.weights = self.hub.put("models/org/model/w.safetensors", b"\x06w" * 100_000)
        self.digest = harness.sha256(self.weights)
        self.lock = self.hf_cache / f".locks/models--org--model/{self.digest}.lock"
        self.path = self.manifest([{"name": "w", "source": "org/model", "filename": "w.safetensors"}])

    def python_holds(self):
        """The real filelock, as huggingface_hub takes it."""
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        holder = subprocess.Popen(
            [harness.oracle_python(), "-c", HOLD, str(self.lock), "664"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

        def end():
            holder.kill()
            holder.communicate()

        self.addCleanup(end)
        self.assertEqual(holder.stdout.readline(), "held\n")
        return holder

    def test_a_lock_that_python_holds_times_out_and_names_the_holder(self):
        holder = self.python_holds()
        # A waiting line is due after 2 s, and looked at once a second at least.
        done = self.fvp(self.path, "--lock-timeout", "6s")
        self.assert_ok(done, 11)
        waiting, *_, error, _ = [line for line in done.stderr.splitlines() if str(holder.pid) in line or "hint" in line]
        self.assertIn("waiting", waiting)
        self.assertIn("error:", error)
        self.assertIn("--lock-timeout", done.stderr)
        self.assertEqual(self.hub.stats()["body_bytes"], 0)

    def test_when_python_lets_go_we_go_on(self):
        holder = self.python_holds()
        process = self.start(self.path, "--verbose")
        # It waits: the API was asked, no body is.
        self.wait_for("the tree request", lambda: self.hub.stats()["api_requests"] >= 2)
        self.assertIsNone(process.poll())
        holder.stdin.write("\n")
        holder.stdin.flush()
        out, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(harness.Path(self.paths(out)["w"]).read_bytes(), self.weights)

    def test_what_another_process_brings_while_we_wait_is_a_hit(self):
        self.hub.faults({"path": "/lfs/*", "kind": "throttle", "bytes_per_second": 100_000})
        first = self.start(self.path)
        self.wait_for("the first to hold the lock", lambda: list(self.dir.rglob("*.fvprefetch-part")))
        second = self.start(self.path, "--json")
        out, err = second.communicate(timeout=harness.PATIENCE)
        self.assertEqual(second.returncode, 0, err)
        report = json.loads(out)
        self.assertEqual(report["entries"][0]["state"], "hit")
        self.assertEqual(report["lock"]["kind"], "flock+lease")
        self.assertGreater(report["lock"]["waited_seconds"], 0)
        first.communicate(timeout=harness.PATIENCE)
        self.assertEqual(first.returncode, 0)
        self.assertEqual(self.hub.stats()["body_bytes"], len(self.weights))

    def test_status_tells_who_is_fetching_and_how_far(self):
        self.hub.faults({"path": "/lfs/*", "kind": "stall", "after_bytes": 50_000})
        first = self.start(self.path)
        self.wait_for("some bytes", lambda: any(p.stat().st_size for p in self.dir.rglob("*.fvprefetch-part")))
        # Status asks nobody: what the first process has not written down yet, it cannot know.
        done = self.fvp("status", self.path, "--json")
        self.assertEqual(self.fvp("status", self.path).returncode, done.returncode)
        entry = json.loads(done.stdout)["entries"][0]
        self.assertIn(entry["state"], ("being_fetched", "missing"))
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=harness.PATIENCE)
        self.assertEqual(first.returncode, 128 + signal.SIGTERM)

    def test_a_run_that_was_killed_leaves_nothing_that_reads_as_complete(self):
        self.hub.put("models/org/model/config.json", b"{}")
        commit = json.loads(self.fvp("plan", self.path, "--json").stdout)["entries"][0]["commit"]
        path = self.manifest([{"name": "m", "source": "org/model", "revision": commit}])
        self.hub.faults({"path": "/lfs/*", "kind": "stall", "after_bytes": 50_000})
        first = self.start(path)
        snapshot = self.hf_cache / f"models--org--model/snapshots/{commit}"
        self.wait_for("the small file", lambda: (snapshot / "config.json").exists())
        self.wait_for("some bytes", lambda: any(p.stat().st_size for p in self.dir.rglob("*.fvprefetch-part")))
        states = [json.loads(self.fvp("status", path, "--json").stdout)["entries"][0]["state"]]
        first.kill()
        first.communicate(timeout=harness.PATIENCE)
        states.append(json.loads(self.fvp("status", path, "--json").stdout)["entries"][0]["state"])
        self.assertEqual(states, ["being_fetched", "partial"])
        offline = self.fvp(path, "--offline")
        self.assert_ok(offline, 12)
        self.assertIn("w.safetensors", offline.stderr)

    def test_a_holder_that_was_killed_does_not_block_the_next(self):
        self.hub.faults({"path": "/lfs/*", "kind": "stall", "after_bytes": 50_000, "times": 1})
        first = self.start(self.path)
        self.wait_for("the first to hold the lock", lambda: list(self.dir.rglob("*.fvprefetch-part")))
        first.kill()
        first.communicate(timeout=harness.PATIENCE)
        self.hub.no_faults()
        done = self.fvp(self.path)
        self.assert_ok(done)
        self.assertEqual(harness.Path(self.paths(done.stdout)["w"]).read_bytes(), self.weights)

    def test_python_waits_for_the_lock_that_we_hold(self):
        self.hub.faults({"path": "/lfs/*", "kind": "throttle", "bytes_per_second": 100_000})
        first = self.start(self.path)
        self.wait_for("us to hold the lock", lambda: list(self.dir.rglob("*.fvprefetch-part")))
        probe = "import sys, filelock\ntry: filelock.FileLock(sys.argv[1]).acquire(timeout=0)\nexcept filelock.Timeout: print('busy')"
        answer = self.run_command([harness.oracle_python(), "-c", probe, self.lock])
        self.assertEqual(answer.stdout, "busy\n", answer.stderr)
        first.communicate(timeout=harness.PATIENCE)
        self.assertEqual(first.returncode, 0)
        self.assertEqual(oct(self.lock.stat().st_mode & 0o777), "0o664")
        self.assertEqual(os.path.getsize(self.lock), 0)


if __name__ == "__main__":
    harness.main()
