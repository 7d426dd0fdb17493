"""`fvprefetch doctor`: what a job will meet on its nodes, and which lock excludes there.

Nothing of it is believed: under a shim whose flock() always succeeds, the table says so.
"""

import json
import os
import shutil
import signal
import subprocess
import time
import unittest

import harness

AS_NOBODY = ["runuser", "-u", "nobody", "--"]


class Doctor(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.eval_cache.mkdir()
        self.hf_cache.mkdir()

    def doctor(self, *args, code=0, **kwargs):
        """The JSON document. Whatever comes, nothing is left and no request was sent."""
        before = self.there()
        done = self.fvp("doctor", "--json", *args, **kwargs)
        self.assert_ok(done, code)
        self.assertEqual(self.there(), before)
        self.assertEqual(self.hub.stats()["requests"], 0)
        self.said = done.stderr
        found = json.loads(done.stdout)
        self.assertEqual((found["schema"], found["command"], found["exit_code"]), (1, "doctor", code))
        return found

    def there(self):
        return {p for p in self.dir.rglob("*") if "codes-" not in str(p)}

    def locks(self, found, role="eval cache"):
        (locks,) = (each for each in found["locks"] if each["role"] == role)
        return locks

    def verdicts(self, locks):
        return {each["name"]: each["verdict"] for each in locks["primitives"]}

    def shims(self, *names, **env):
        paths = [str(harness.BUILD / f"tests/shims/lib{name}.so") for name in names]
        return {"LD_PRELOAD": " ".join(paths), **env}

    # --- alone -----------------------------------------------------------------------------------

    def test_alone_it_tests_with_a_second_process_and_says_what_that_proves(self):
        found = self.doctor()
        locks = self.locks(found)
        self.assertEqual(locks["between"], "processes")
        self.assertEqual(
            self.verdicts(locks), {"flock": "excludes", "OFD": "excludes", "link": "excludes", "mkdir": "excludes"}
        )
        self.assertEqual(self.locks(found, "Hub cache")["same_as"], "eval cache")
        self.assertEqual(found["launcher"], {"name": "none", "mode": "alone", "ranks": 1, "mpi_library": None})
        text = self.fvp("doctor")
        self.assert_ok(text)
        self.assertIn("proves nothing about other nodes", text.stdout)
        self.assertIn("srun -N2 fvprefetch doctor", text.stdout)
        self.assertIn("relies on flock, and a lease made by link inside it", text.stdout)
        self.assertEqual(text.stderr, "")

    def test_a_node_says_where_everything_is_and_tells_no_secret(self):
        token = self.dir / "home/token-file"
        token.write_text("hf_verysecret")
        env = {"HF_TOKEN_PATH": str(token), "https_proxy": "http://user:password@127.0.0.1:9", "TORCH_HOME": "/dev/shm/torch"}
        found = self.doctor(env=env)
        (node,) = found["nodes"]
        self.assertEqual([each["role"] for each in node["directories"]], ["eval cache", "Hub cache", "TORCH_HOME"])
        eval_cache = node["directories"][0]
        self.assertEqual(eval_cache["path"], str(self.eval_cache))
        self.assertTrue(eval_cache["exists"] and eval_cache["writable"])
        space = os.statvfs(self.eval_cache)
        self.assertEqual(eval_cache["bytes_total"], space.f_blocks * space.f_frsize)
        kind = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", self.eval_cache], capture_output=True, text=True)
        self.assertEqual(eval_cache["file_system"], kind.stdout.strip())
        self.assertEqual(node["token_from"], str(token))
        self.assertEqual(node["endpoint"], self.hub.url)
        self.assertEqual(node["proxies"], [{"variable": "https_proxy", "value": "http://127.0.0.1:9"}])
        text = self.fvp("doctor", env=env).stdout
        self.assertIn("there is one, from " + str(token), text)
        for secret in ("verysecret", "password"):
            self.assertNotIn(secret, text + json.dumps(found))

    # --- locks -----------------------------------------------------------------------------------

    def test_a_flock_that_says_yes_to_everybody_is_found_out(self):
        found = self.doctor(env=self.shims("lying_flock"))
        locks = self.locks(found)
        self.assertEqual(
            self.verdicts(locks),
            {"flock": "does not exclude", "OFD": "does not exclude", "link": "excludes", "mkdir": "excludes"},
        )
        self.assertEqual(locks["auto_relies_on"], "a lease made by link alone")
        self.assertIn("while", locks["primitives"][0]["detail"])

    def test_a_file_system_without_flock_and_links_has_mkdir(self):
        locks = self.locks(self.doctor(env=self.shims("failing_flock", "refusing_link", FVP_SHIM_ERRNO="38")))
        self.assertEqual(
            self.verdicts(locks), {"flock": "refused", "OFD": "refused", "link": "refused", "mkdir": "excludes"}
        )
        self.assertEqual(locks["auto_relies_on"], "a lease made by mkdir alone")
        self.assertIn("Function not implemented", locks["primitives"][0]["detail"])

    def test_a_flock_that_never_returns_holds_nobody_up(self):
        begin = time.monotonic()
        found = self.doctor(env=self.shims("hanging_flock"))
        self.assertLess(time.monotonic() - begin, 45)
        self.assertEqual(self.verdicts(self.locks(found))["flock"], "hangs")
        self.assertIn("--lock lease", json.dumps(found["findings"]))

    # --- what makes a fetch impossible -----------------------------------------------------------

    def as_nobody(self, *args):
        """The command for another user, who can get at it whatever folder the build lies in."""
        self.dir.chmod(0o755)
        for name in ("fvprefetch", "fvprefetch-mpi.so"):
            if (harness.BUILD / name).exists():
                shutil.copy(harness.BUILD / name, self.dir / name)
        return self.run_command([*AS_NOBODY, self.dir / "fvprefetch", *args])

    def test_a_cache_of_another_user_is_a_finding_with_exit_10(self):
        self.dir.chmod(0o755)
        done = self.as_nobody("doctor")
        self.assert_ok(done, 10)
        self.assertIn(f"FAILS: `{self.eval_cache}` cannot be written: drwxr-xr-x of user 0", done.stdout)
        self.assertIn("--cache-dir", done.stderr)
        self.assertEqual(list(self.eval_cache.iterdir()), [])

    def test_lock_folders_that_another_user_kept_to_himself_are_named(self):
        self.eval_cache.chmod(0o777)
        self.hf_cache.chmod(0o777)
        (self.hf_cache / ".locks").mkdir(mode=0o755)
        done = self.as_nobody("doctor")
        self.assert_ok(done, 10)
        self.assertIn(f"`{self.hf_cache}/.locks` cannot be written", done.stdout)
        self.assertIn("chmod g+rwXs", done.stdout)

    def test_a_read_only_mount_is_told_from_missing_rights(self):
        script = 'mount -t tmpfs none "$1" && mount -o remount,ro "$1" && shift && exec "$@"'
        argv = ["unshare", "-m", "sh", "-c", script, "sh", self.eval_cache, self.command(), "doctor"]
        done = self.run_command(argv)
        if "unshare failed" in done.stderr:
            raise unittest.SkipTest(done.stderr)
        self.assert_ok(done, 10)
        self.assertIn("it is mounted read-only", done.stdout)

    def test_a_full_disk_is_exit_9(self):
        script = 'mount -t tmpfs -o size=1m none "$1" && head -c 2m /dev/zero > "$1/full"; shift; exec "$@"'
        argv = ["unshare", "-m", "sh", "-c", script, "sh", self.eval_cache, self.command(), "doctor"]
        done = self.run_command(argv)
        if "unshare failed" in done.stderr:
            raise unittest.SkipTest(done.stderr)
        self.assert_ok(done, 9)
        self.assertIn("no free space", done.stdout)

    def test_a_file_in_place_of_a_cache_is_exit_2(self):
        self.eval_cache.rmdir()
        self.eval_cache.write_text("")
        found = self.doctor(code=2)
        self.assertIn("is no directory", found["error"]["message"])
        self.assertEqual(self.locks(found)["primitives"], [])
        self.assertEqual(self.verdicts(self.locks(found, "Hub cache"))["flock"], "excludes")

    def test_a_bundle_that_is_not_there_is_exit_6(self):
        found = self.doctor(code=6, env={"SSL_CERT_FILE": "/nonexistent/bundle.pem"})
        self.assertIn("/nonexistent/bundle.pem", found["error"]["message"])

    def test_mpi_that_is_required_and_not_there_is_exit_13_and_the_rest_is_told(self):
        self.be_launcher()
        step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}
        found = self.doctor("--require-mpi", code=13, env=step)
        self.assertIn("--mpi=pmix", found["error"]["message"])
        self.assertEqual(self.verdicts(self.locks(found))["link"], "excludes")
        found = self.doctor(env=step)
        self.assertEqual(found["launcher"]["mode"], "lock_only")
        self.assertEqual([each["severity"] for each in found["findings"]], ["warning"])
        other = self.fvp("doctor", env={**step, "SLURM_PROCID": "1"})
        self.assertEqual((other.returncode, other.stdout, other.stderr), (0, "", ""))

    # --- directories that are not quite there ----------------------------------------------------

    def test_of_a_cache_that_is_not_there_the_next_folder_above_is_examined(self):
        found = self.doctor(env={"FASTVIDEO_EVAL_CACHE": str(self.dir / "not/yet/there")})
        directory = found["nodes"][0]["directories"][0]
        self.assertFalse(directory["exists"])
        self.assertEqual(directory["examined"], str(self.dir))
        self.assertEqual(self.verdicts(self.locks(found))["link"], "excludes")

    def test_a_linked_lock_folder_is_tested_where_it_leads(self):
        elsewhere = harness.Path("/dev/shm") / self.dir.name
        elsewhere.mkdir()
        self.addCleanup(shutil.rmtree, elsewhere, ignore_errors=True)
        (self.hf_cache / ".locks").symlink_to(elsewhere)
        found = self.doctor()
        findings = found["nodes"][0]["findings"]
        self.assertEqual([(each["severity"], each["about"]) for each in findings], [("warning", "Hub cache")])
        self.assertIn(str(elsewhere), findings[0]["error"]["message"])
        self.assertEqual(self.verdicts(self.locks(found, "Hub cache"))["flock"], "excludes")
        self.assertEqual(list(elsewhere.iterdir()), [])

    def test_a_lock_folder_that_leads_nowhere_is_exit_10(self):
        (self.hf_cache / ".locks").symlink_to(self.dir / "nowhere")
        found = self.doctor(code=10)
        self.assertIn("nowhere", found["error"]["message"])

    # --- ends and many ---------------------------------------------------------------------------

    def test_a_signal_ends_it_in_good_order(self):
        process = self.start("doctor", env=self.shims("hanging_flock"))
        self.wait_for("the probe", lambda: list(self.eval_cache.rglob("doctor.*/flock")))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM, err)
        self.assertEqual(list(self.eval_cache.rglob("*")), [])

    def test_ranks_of_one_node_are_the_two_processes(self):
        for ranks in (2, 3):
            done = self.mpirun(ranks, "doctor", "--json")
            self.assertEqual(done.codes, [0] * ranks, done.stderr)
            found = json.loads(done.stdout)
            self.assertEqual(found["launcher"]["mode"], "mpi")
            self.assertEqual(found["launcher"]["ranks"], ranks)
            self.assertIn("MPI", found["launcher"]["mpi_library"])
            self.assertEqual(len(found["nodes"]), 1)
            self.assertEqual(set(self.verdicts(self.locks(found)).values()), {"excludes"})
        self.assertEqual(list(self.eval_cache.rglob("*")), [])

    def test_all_ranks_end_alike_when_one_cannot_fetch(self):
        (self.hf_cache / ".locks").symlink_to(self.dir / "nowhere")
        done = self.mpirun(2, "doctor")
        self.assertEqual(done.codes, [10, 10], done.stderr)
        self.assertEqual(done.stderr.count("error:"), 1)


if __name__ == "__main__":
    harness.main()
