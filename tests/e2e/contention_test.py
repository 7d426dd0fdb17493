"""Many who want the same thing, locks that lie, hang or are refused, holders that die or are suspended,
and what lies where a lock should be: one download, the right bytes, and a clear word on whom is waited
for."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import harness

HOLD = """
import sys, filelock
with filelock.FileLock(sys.argv[1], mode=0o666):
    print("held", flush=True)
    sys.stdin.readline()
"""
NOBODY = 65534


def fastvideo_lock(directory, key):
    """Where FastVideo's ensure_checkpoint has its lock."""
    flat = key.replace("/", "-")
    return pathlib.Path(directory) / (hashlib.sha256(flat.encode()).hexdigest() + flat + ".lock")


class Contention(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.data = self.hub.put("files/w.pth", os.urandom(400_000))
        self.url = self.hub.file_url("w.pth")
        self.file = self.eval_cache / "models/w"
        self.path = self.manifest([{"name": "w", "source": self.url}])
        self.locks = self.eval_cache / ".fvprefetch/locks"
        self.key = harness.sha256(b"models/w")
        self.lease = self.locks / f"{self.key}.lease"

    def slowly(self, bytes_per_second=100_000):
        self.hub.faults({"path": "/files/*", "kind": "throttle", "bytes_per_second": bytes_per_second})

    def some_bytes(self):
        self.wait_for("some bytes", lambda: any(p.stat().st_size for p in self.dir.rglob("*.fvprefetch-part")))

    def finish(self, process, code=0):
        out, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, code, f"stdout:\n{out}\nstderr:\n{err}")
        return out, err

    def assert_once(self):
        self.assertEqual(self.file.read_bytes(), self.data)
        self.assertEqual(self.hub.stats()["body_bytes"], len(self.data))

    def assert_nothing_held(self):
        self.assertEqual([p.name for p in self.locks.iterdir() if p.suffix != ".lock"], [])

    # --- many ------------------------------------------------------------------------------------

    def test_64_processes_are_one_download_and_63_hits_that_say_on_whom_they_wait(self):
        self.slowly(130_000)  # 3 s: a line is due after 2
        first = self.start(self.path)
        self.some_bytes()
        others = [self.start(self.path, "--json") for _ in range(63)]
        self.finish(first)
        for other in others:
            out, err = self.finish(other)
            self.assertEqual(json.loads(out)["entries"][0]["state"], "hit")
            lines = [line for line in err.splitlines() if "waiting" in line]
            self.assertLessEqual(len(lines), 1, err)
            for line in lines:
                self.assertIn(f"{socket.gethostname()} pid {first.pid}", line)
        self.assert_once()
        self.assert_nothing_held()

    def test_everybody_leaves_as_a_hit_of_a_snapshot_of_many_files(self):
        for i in range(40):
            self.hub.put(f"models/org/many/f{i:02}.bin", os.urandom(2000))
        path = self.manifest([{"name": "m", "source": "org/many"}], "many.json")
        runs = [self.start(path, "--json") for _ in range(8)]
        states = [json.loads(self.finish(run)[0])["entries"][0]["state"] for run in runs]
        self.assertEqual(sorted(set(states)), ["fetched", "hit"] if "hit" in states else ["fetched"])
        self.assertEqual(self.hub.stats()["body_bytes"], 40 * 2000)
        left = [p for p in (self.hf_cache / ".locks").rglob("*") if p.is_file() and p.suffix != ".lock"]
        self.assertEqual(left, [])

    # --- locks that do not work --------------------------------------------------------------------

    def shimmed(self, shim, **env):
        library = harness.BUILD / f"tests/shims/lib{shim}.so"
        self.assertTrue(library.exists())  # the loader only warns
        return {"LD_PRELOAD": str(library), **env}

    def race(self, env, *options):
        self.slowly()
        runs = [self.start(self.path, "--json", *options, env=env) for _ in range(4)]
        ends = [self.finish(run) for run in runs]
        self.assert_once()
        self.assert_nothing_held()
        return ends

    def test_where_every_flock_succeeds_the_lease_keeps_it_one_download(self):
        for out, _ in self.race(self.shimmed("lying_flock")):
            self.assertEqual(json.loads(out)["lock"]["kind"], "flock+lease")

    def test_where_flock_never_returns_the_lease_keeps_it_one_download_and_says_so(self):
        fetched = 0
        for out, err in self.race(self.shimmed("hanging_flock")):
            if json.loads(out)["entries"][0]["state"] == "fetched":
                fetched += 1
                self.assertIn("has not returned", err)
        self.assertEqual(fetched, 1)

    def test_where_flock_is_refused_the_lease_keeps_it_one_download(self):
        for number in ("ENOLCK", "ENOSYS", "EBADF", "524"):
            with self.subTest(number):
                self.race(self.shimmed("failing_flock", FVP_SHIM_ERRNO=str(getattr(errno, number, number))))
                self.file.unlink()
                self.hub.reset()

    def test_a_lease_alone_asks_no_flock(self):
        for out, err in self.race(self.shimmed("hanging_flock"), "--lock", "lease"):
            self.assertEqual(json.loads(out)["lock"]["kind"], "lease")
            self.assertNotIn("has not returned", err)
        self.assertEqual(list(self.locks.glob("*.lock")), [])

    def test_a_lease_that_goes_while_it_is_looked_at_is_gone(self):
        self.race(self.shimmed("forgetting_read"), "--lock", "lease")

    def test_a_lock_call_that_answers_late_does_not_change_the_order(self):
        absent = {"name": "absent", "source": self.hub.file_url("absent.pth")}
        path = self.manifest([{"name": "w", "source": self.url}, absent])
        self.assert_ok(self.fvp(path, "--max-active", "1", env=self.shimmed("late_flock")), 5)
        self.assert_once()

    def test_flock_alone_fails_where_there_is_none(self):
        done = self.fvp(self.path, "--lock", "flock", env=self.shimmed("failing_flock", FVP_SHIM_ERRNO="37"))
        self.assert_ok(done, 1)
        self.assertIn("--lock lease", done.stderr)

    def test_a_name_that_another_client_made_is_waited_for_until_it_is_seen(self):
        self.race(self.shimmed("late_names"))

    # --- holders that die or stand still -------------------------------------------------------------

    def test_a_killed_holder_is_followed_at_once_and_its_bytes_are_kept(self):
        self.slowly()
        first = self.start(self.path)
        self.some_bytes()
        second = self.start(self.path, "--json")
        self.wait_for("the second to wait", lambda: len(list(self.locks.glob("*.lock"))) == 1)
        first.kill()
        first.communicate(timeout=harness.PATIENCE)
        self.hub.no_faults()
        self.finish(second)
        self.assertEqual(self.file.read_bytes(), self.data)

    def test_a_killed_waiter_troubles_nobody(self):
        self.slowly()
        first = self.start(self.path)
        self.some_bytes()
        second = self.start(self.path)
        third = self.start(self.path)
        second.kill()
        second.communicate(timeout=harness.PATIENCE)
        self.finish(first)
        self.finish(third)
        self.assert_once()
        self.assert_nothing_held()

    def test_a_holder_that_is_suspended_past_its_lease_is_overtaken_and_does_no_harm(self):
        # With flock the waiter would wait for the process that still has it; between nodes whose flock
        # is their own it is the lease that decides.
        self.slowly()
        options = ("--lock", "lease", "--lease-timeout", "1s", "--json")
        first = self.start(self.path, *options)
        self.some_bytes()
        first.send_signal(signal.SIGSTOP)
        second = self.start(self.path, *options)
        self.finish(second)
        published = os.stat(self.file).st_ino
        self.hub.no_faults()
        first.send_signal(signal.SIGCONT)
        out, err = self.finish(first)
        self.assertIn("has taken over the lock", err)
        self.assertEqual(json.loads(out)["entries"][0]["state"], "hit")
        self.assertEqual(self.file.read_bytes(), self.data)
        self.assertEqual(os.stat(self.file).st_ino, published)
        self.assertEqual(self.unfinished(), [])
        self.assert_nothing_held()

    # --- what lies where a lock should be ---------------------------------------------------------------

    def test_a_lease_that_is_garbage_or_of_a_later_version_is_waited_for_and_then_replaced(self):
        for text in ("", "\x00\xff garbage", '{"version": 2, "host": "node17", "pid": 1}', "[" * 100_000):
            with self.subTest(text[:20]):
                self.locks.mkdir(parents=True, exist_ok=True)
                self.lease.write_text(text)
                self.assert_ok(self.fvp(self.path, "--lease-timeout", "1s"))
                self.assert_once()
                self.assert_nothing_held()
                self.file.unlink()
                self.hub.reset()

    def test_a_lease_of_another_host_that_lives_is_waited_for_and_named(self):
        self.locks.mkdir(parents=True)
        record = {"version": 1, "host": "node17.invalid", "boot": "b", "pid_namespace": "n", "pid": 4242, "started": 9,
                  "user": "ada", "job": "881", "step": "0", "since": "2026-11-24T12:00:00Z", "bytes_done": 0}
        self.lease.write_text(json.dumps(record | {"beat": 0}))
        run = self.start(self.path, "--lease-timeout", "1s", "--lock-timeout", "4s")
        # It beats as long as we are waited for; a beat that comes late is no failure of the test's.
        for beat in range(1, 10_000):
            if run.poll() is not None:
                break
            with open(self.lease, "r+") as file:
                file.write(json.dumps(record | {"beat": beat}))
            time.sleep(0.02)
        _, err = self.finish(run, 11)
        self.assertIn("node17.invalid pid 4242 user ada job 881.0", err)
        self.assertIn("--lock-timeout", err)
        self.assertEqual(self.hub.stats()["body_bytes"], 0)

    def test_a_lease_that_is_a_symbolic_link_is_not_followed_and_flock_does_alone(self):
        self.locks.mkdir(parents=True)
        self.lease.symlink_to(self.dir / "elsewhere")
        done = self.fvp(self.path)
        self.assert_ok(done)
        self.assertIn("symbolic link", done.stderr)
        self.assert_once()
        self.assertFalse((self.dir / "elsewhere").exists())
        self.file.unlink()
        refused = self.fvp(self.path, "--lock", "lease")
        self.assert_ok(refused, 1)
        self.assertIn(str(self.lease), refused.stderr)

    def test_a_lock_file_that_is_a_directory_or_a_link_leaves_the_lease(self):
        lock = self.locks / f"{self.key}.lock"
        for make in (lock.mkdir, lambda: lock.symlink_to(self.dir / "elsewhere")):
            self.locks.mkdir(parents=True, exist_ok=True)
            make()
            done = self.fvp(self.path)
            self.assert_ok(done)
            self.assertIn(str(lock), done.stderr)
            self.assert_once()
            self.assertFalse((self.dir / "elsewhere").exists())
            self.file.unlink()
            self.hub.reset()
            lock.rmdir() if lock.is_dir() and not lock.is_symlink() else lock.unlink()

    @contextlib.contextmanager
    def as_nobody(self):
        """Commands run as another user, who may go through our folders."""
        os.chmod(self.dir, 0o755)
        yield lambda *args, **kw: self.run_command(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", self.command(), *args], **kw)

    def test_a_lock_file_that_may_not_be_opened_leaves_the_lease_and_says_whose_it_is(self):
        self.eval_cache.mkdir()
        os.chmod(self.eval_cache, 0o2777)
        with self.as_nobody() as run:
            self.assert_ok(run(self.path))  # makes the folders, as everybody's
            self.file.unlink()
            self.hub.reset()
            lock = self.locks / f"{self.key}.lock"
            lock.unlink()
            lock.touch(mode=0o600)  # root's
            done = run(self.path)
        self.assert_ok(done)
        self.assertIn(f"{lock} is root's, mode rw-------", done.stderr)
        self.assert_once()

    def test_a_read_only_mount_is_a_matter_of_rights(self):
        self.locks.mkdir(parents=True)
        for options in (["--bind", self.eval_cache], ["-o", "remount,ro,bind"]):
            subprocess.run(["mount", *options, self.eval_cache], check=True)
        self.addCleanup(subprocess.run, ["umount", self.eval_cache], check=True)
        done = self.fvp(self.path)
        self.assert_ok(done, 10)
        self.assertIn("Read-only file system", done.stderr)

    def test_a_lock_folder_that_cannot_be_written_is_a_matter_of_rights(self):
        for folder in ("models", ".fvprefetch/tmp", ".fvprefetch/receipts", ".fvprefetch/partials"):
            (self.eval_cache / folder).mkdir(parents=True)
            os.chmod(self.eval_cache / folder, 0o777)
        self.locks.mkdir()  # ours
        with self.as_nobody() as run:
            done = run(self.path, "--lock", "lease")
            self.assert_ok(done, 10)
            self.assertIn(str(self.locks), done.stderr)
            self.assertEqual(self.hub.stats()["body_bytes"], 0)

    def test_a_group_s_cache_works_for_its_second_user_whatever_the_umask(self):
        self.eval_cache.mkdir()
        os.chown(self.eval_cache, 0, NOBODY)
        os.chmod(self.eval_cache, 0o2775)
        os.chmod(self.dir / "tmp", 0o1777)
        self.slowly()
        first = subprocess.Popen([self.command(), self.path], env=self.env, cwd=self.dir, umask=0o022,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(first.wait)
        self.addCleanup(first.kill)
        self.some_bytes()
        first.kill()  # its lease stays, and the second user has to put it away
        first.communicate(timeout=harness.PATIENCE)
        self.assertTrue(self.lease.exists())
        self.hub.no_faults()
        with self.as_nobody() as run:
            self.assert_ok(run(self.path, umask=0o022))
        self.assertEqual(self.file.read_bytes(), self.data)
        self.assertFalse(self.lease.exists())

    def test_a_full_disk_under_the_locks_is_said_to_be_one(self):
        small = self.dir / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=12", "none", small], check=True)
        self.addCleanup(subprocess.run, ["umount", small], check=True)
        cache = small / "eval"
        (cache / "models").mkdir(parents=True)
        with contextlib.suppress(OSError):
            for i in range(100):
                (small / str(i)).touch()
        done = self.fvp(self.path, env={"FASTVIDEO_EVAL_CACHE": str(cache)})
        self.assert_ok(done, 9)
        self.assertEqual(self.hub.stats()["body_bytes"], 0)

    # --- FastVideo's own lock ------------------------------------------------------------------------

    def python_holds(self, lock):
        holder = subprocess.Popen([harness.oracle_python(), "-c", HOLD, str(lock)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def end():
            holder.kill()
            holder.communicate()

        self.addCleanup(end)
        self.assertEqual(holder.stdout.readline(), "held\n")
        return holder

    def test_fastvideo_on_this_node_excludes_us_and_we_exclude_it(self):
        self.hub.put("models/org/model/a.pth", b"a" * 1000)
        self.hub.put("models/org/whole/a.pth", b"b" * 1000)
        cases = [({"name": "w", "source": self.url}, self.url),
                 ({"name": "f", "source": "org/model", "filename": "a.pth"}, "org/model/a.pth"),
                 ({"name": "s", "source": "org/whole"}, "org/whole/*")]
        for entry, key in cases:
            with self.subTest(key):
                path = self.manifest([entry], "one.json")
                lock = fastvideo_lock(self.dir / "tmp", key)
                holder = self.python_holds(lock)
                run = self.start(path)
                self.assertIn(f"pid {holder.pid} (python", self.waiting_line(run))
                self.assertFalse(any(self.dir.rglob("*.fvprefetch-part")))
                holder.stdin.write("\n")
                holder.stdin.flush()
                self.finish(run)
                self.assertEqual(oct(lock.stat().st_mode & 0o777), "0o666")
        self.file.unlink()
        self.slowly()
        run = self.start(self.path)
        self.some_bytes()
        probe = "import sys, filelock\ntry: filelock.FileLock(sys.argv[1]).acquire(timeout=0)\nexcept filelock.Timeout: print('busy')"
        answer = self.run_command([harness.oracle_python(), "-c", probe, fastvideo_lock(self.dir / "tmp", self.url)])
        self.assertEqual(answer.stdout, "busy\n", answer.stderr)
        self.finish(run)

    def waiting_line(self, run):
        for line in run.stderr:
            if "waiting" in line:
                return line
        return ""

    def test_fastvideo_s_lock_is_waited_for_only_for_a_while(self):
        self.python_holds(fastvideo_lock(self.dir / "tmp", self.url))
        self.assert_ok(self.fvp(self.path, "--lock-timeout", "3s"))
        self.assert_once()

    def test_a_fifo_at_the_name_of_a_lock_is_neither_waited_for_nor_used(self):
        self.assert_ok(self.fvp(self.path))
        (ours,) = self.locks.glob("*.lock")
        for lock, warned in ((fastvideo_lock(self.dir / "tmp", self.url), False), (ours, True)):
            with self.subTest(str(lock)):
                self.file.unlink()
                lock.unlink()
                os.mkfifo(lock, 0o644)
                done = self.fvp(self.path)
                self.assert_ok(done)
                self.assertEqual("is not a regular file" in done.stderr, warned, done.stderr)

    def test_a_file_system_that_hangs_in_a_lock_s_call_leaves_signals_heard(self):
        # The first call of all: a disk of this kernel alone that has answered is asked without a thread.
        for call, lock in (("open", "auto"), ("link", "lease")):
            with self.subTest(call):
                shim = harness.BUILD / "tests/shims/libhanging_names.so"
                run = self.start(self.path, "--lock", lock, env={
                    "LD_PRELOAD": str(shim), "FVPREFETCH_SHIM_HANGS_IN": call, "FVPREFETCH_SHIM_BELOW": str(self.eval_cache)})
                self.assertIn("does not answer", self.waiting_line(run))
                run.send_signal(signal.SIGTERM)
                _, err = run.communicate(timeout=harness.PATIENCE)
                self.assertEqual(run.returncode, 128 + signal.SIGTERM, err)

    def test_a_holder_that_cannot_renew_its_lease_stops_and_can_be_resumed(self):
        self.slowly()
        shim = harness.BUILD / "tests/shims/libhanging_names.so"
        run = self.start(self.path, "--lease-timeout", "2s", env={
            "LD_PRELOAD": str(shim), "FVPREFETCH_SHIM_HANGS_IN": "renew", "FVPREFETCH_SHIM_BELOW": str(self.eval_cache)})
        _, err = run.communicate(timeout=harness.PATIENCE)
        self.assertEqual(run.returncode, 11, err)
        self.assertIn("could not be renewed", err)
        self.assertIn(str(self.locks), err)
        self.assertFalse(self.file.exists())
        self.hub.no_faults()
        self.assert_ok(self.fvp(self.path))
        self.assertEqual(self.file.read_bytes(), self.data)

    def test_fastvideo_s_lock_is_a_courtesy(self):
        fastvideo_lock(self.dir / "tmp", self.url).mkdir()  # cannot be opened
        self.assert_ok(self.fvp(self.path))
        self.assert_once()

    def test_no_address_with_a_secret_and_none_that_is_too_long_names_a_public_file(self):
        secret = self.hub.put("files/s.pth", b"\x07s" * 500)
        long = "l" * 180 + ".pth"
        self.hub.put(f"files/{long}", secret)
        path = self.manifest([{"name": "s", "source": self.hub.file_url("s.pth?signature=abc")},
                              {"name": "l", "source": self.hub.file_url(long)}])
        self.assert_ok(self.fvp(path))
        self.assertEqual(list((self.dir / "tmp").iterdir()), [])

    def test_a_warm_run_takes_no_lock_of_any_kind(self):
        self.assert_ok(self.fvp(self.path))
        for lock in [*self.locks.iterdir(), *(self.dir / "tmp").iterdir()]:
            lock.unlink()
        self.assert_ok(self.fvp(self.path))
        self.assertEqual([*self.locks.iterdir(), *(self.dir / "tmp").iterdir()], [])


if __name__ == "__main__":
    harness.main()
