"""Limits of the system that are smaller than the run would like: threads, open files.

Each run gets on with what there is, or ends with an error that names the limit: none is killed by its
own std::terminate, and none hangs.
"""

import fcntl
import os
import re
import resource
import shutil
from pathlib import Path

import harness

ENTRIES = 6
MANY = 600
FEW_FILES = 64  # that may be open


class Limits(harness.EndToEnd):
    def entries(self, number=ENTRIES):
        entries = []
        for i in range(number):
            data = self.hub.put(f"files/f{i}", os.urandom(1000) + bytes([i % 256]))
            entries.append(
                {"name": f"f{i}", "source": self.hub.file_url(f"f{i}"), "sha256": harness.sha256(data)}
            )
        return entries

    def caches(self, name):
        return ["--cache-dir", self.dir / name, "--hf-cache-dir", self.dir / f"{name}-hub"]

    # --- threads ---------------------------------------------------------------------------------

    def shim(self, thread=0, after=False):
        env = {
            "LD_PRELOAD": str(harness.BUILD / "tests/shims/libfailing_thread.so"),
            "FVP_SHIM_THREAD_COUNT": str(self.dir / "threads"),
            "FVP_SHIM_THREAD": str(thread),
        }
        return {**env, "FVP_SHIM_THREADS_AFTER": "1"} if after else env

    def threads_asked_for(self):
        return int((self.dir / "threads").read_text())

    def test_a_cold_run_gets_on_without_any_one_thread_and_without_all_from_any_one_on(self):
        self.hub.put("models/org/name/config.json", b"{}")
        self.hub.put("models/org/name/weights.bin", os.urandom(3_000_000))
        manifest = self.manifest([*self.entries(), {"name": "model", "source": "org/name"}])
        self.assert_ok(self.fvp(manifest, *self.caches("all"), env=self.shim()))
        most = self.threads_asked_for()
        self.assertGreater(most, 2)
        for after in (False, True):
            for n in range(1, most + 1):
                with self.subTest(thread=n, after=after):
                    cache = f"cold-{n}-{after}"
                    done = self.fvp(manifest, *self.caches(cache), env=self.shim(n, after))
                    if n == 1 and done.returncode > 0:
                        continue  # that of the signals, without which the command does not begin
                    self.assert_ok(done)
                    self.assertEqual(len(self.paths(done.stdout)), ENTRIES + 1)
                    self.assertEqual(self.unfinished(), [])

    def test_verify_hashes_without_threads(self):
        manifest = self.manifest(self.entries())
        self.assert_ok(self.fvp(manifest))
        for n in (2, 3):
            done = self.fvp("verify", manifest, env=self.shim(n, after=True))
            self.assert_ok(done)

    # --- open files ------------------------------------------------------------------------------

    def limited(self, most):
        return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))}

    def test_many_files_come_where_few_may_be_open(self):
        manifest = self.manifest(self.entries(MANY))
        done = self.fvp(manifest, "--max-active", "32", **self.limited(FEW_FILES))
        self.assert_ok(done)
        self.assertEqual(len(self.paths(done.stdout)), MANY)
        self.assertIn("ulimit -n", done.stderr)
        self.assertEqual(self.unfinished(), [])

    def test_many_locks_are_waited_for_where_few_files_may_be_open(self):
        manifest = self.manifest(self.entries(MANY))
        self.assert_ok(self.fvp(manifest))  # makes the lock files
        shutil.rmtree(self.eval_cache / "models")
        locks = list((self.eval_cache / ".fvprefetch/locks").glob("*.lock"))
        self.assertEqual(len(locks), MANY)
        held = [open(path, "r+") for path in locks]
        for file in held:
            fcntl.flock(file, fcntl.LOCK_EX)
        process = self.start(manifest, "--max-active", "3", **self.limited(FEW_FILES))
        most = 0  # that stood in the kernel's queue at once

        def queued():
            nonlocal most
            waits = re.findall(rf"-> FLOCK .* {process.pid} ", Path("/proc/locks").read_text())
            most = max(most, len(waits))
            return len(waits)

        self.wait_for("a queue", lambda: queued() >= 3)
        for file in held:
            file.close()
            queued()
        out, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(len(self.paths(out)), MANY)
        # The kernel's list is not of one moment.
        self.assertLess(most, 10)

    def test_too_few_open_files_are_told_as_that(self):
        manifest = self.manifest(self.entries())
        told = 0
        for most in range(8, 40):
            with self.subTest(most=most):
                done = self.fvp(manifest, *self.caches(f"few-{most}"), "--retries", "1", **self.limited(most))
                if done.returncode == 0:
                    self.assertEqual(len(self.paths(done.stdout)), ENTRIES)
                    continue
                self.assertGreater(done.returncode, 0, done.stderr)  # no signal
                self.assertNotIn("https_proxy", done.stderr)
                if "ulimit -n" in done.stderr:
                    told += 1
        self.assertGreater(told, 3)


if __name__ == "__main__":
    harness.main()
