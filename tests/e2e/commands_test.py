"""The commands beside fetch: what they print, and that the looking ones change nothing."""

import json
import signal

import harness


class Commands(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.weights = self.hub.put("models/org/model/w.safetensors", b"\x06w" * 1000)
        self.hub.put("models/org/model/config.json", b"{}\n")
        self.data = self.hub.put("files/a.pth", b"\x05a" * 250)
        self.path = self.manifest(
            [
                {"name": "a.pth", "source": self.hub.file_url("a.pth")},
                {"name": "model", "source": "org/model", "exclude": ["*.json"]},
            ]
        )

    def written(self):
        return [p for root in (self.hf_cache, self.eval_cache) for p in root.rglob("*")]

    def test_ensure_prints_one_path(self):
        done = self.fvp("ensure", "org/model", "--filename", "w.safetensors")
        self.assert_ok(done)
        self.assertEqual(harness.Path(done.stdout.rstrip("\n")).read_bytes(), self.weights)
        done = self.fvp("ensure", self.hub.file_url("a.pth"), "--name", "b.pth")
        self.assertEqual(done.stdout, f"{self.eval_cache}/models/b.pth\n")
        existing = self.dir / "mine.pth"
        existing.write_bytes(b"x")
        self.hub.reset()
        self.assertEqual(self.fvp("ensure", "mine.pth").stdout, "mine.pth\n")
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_plan_tells_sizes_and_sources_and_writes_nothing(self):
        done = self.fvp("plan", self.path, "--json")
        self.assert_ok(done)
        first, second = json.loads(done.stdout)["entries"]
        self.assertEqual((first["state"], first["files"][0]["size"]), ("missing", 500))
        self.assertEqual([f["path"] for f in second["files"]], ["w.safetensors"])
        self.assertEqual(second["files"][0]["size"], 2000)
        self.assertEqual(self.written(), [])
        self.assertEqual(self.hub.stats()["body_bytes"], 0)
        text = self.fvp("plan", self.path)
        self.assert_ok(text)
        self.assertIn("w.safetensors", text.stdout)

    def test_status_goes_from_missing_to_complete_and_asks_nobody(self):
        states = lambda: [e["state"] for e in json.loads(self.fvp("status", self.path, "--json").stdout)["entries"]]
        self.assertEqual(states(), ["missing", "missing"])
        self.assertEqual(self.written(), [])
        self.assert_ok(self.fvp(self.path))
        self.hub.reset()
        self.assertEqual(states(), ["complete", "complete"])
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_env_prints_what_the_job_needs(self):
        done = self.fvp("env", self.path)
        self.assert_ok(done)
        shell = self.run_command(
            ["sh", "-c", done.stdout + 'echo "$HF_HUB_OFFLINE|$HF_HUB_CACHE|$FASTVIDEO_EVAL_CACHE|$TORCH_HOME"']
        )
        self.assertEqual(
            shell.stdout, f"1|{self.hf_cache}|{self.eval_cache}|{self.eval_cache}/torch\n", shell.stderr
        )
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_exports_are_absolute_and_a_cold_status_counts_nothing_it_does_not_know(self):
        done = self.fvp("env", "--cache-dir", "rel")
        self.assertIn(f"FASTVIDEO_EVAL_CACHE={self.dir}/rel\n", done.stdout)
        cold = json.loads(self.fvp("status", self.path, "--json").stdout)
        self.assertIsNone(cold["totals"]["bytes_missing"])

    def test_a_cache_below_a_link_that_leads_nowhere_names_it(self):
        (self.dir / "scratch").symlink_to("/no/such/scratch")
        done = self.fvp(self.path, "--cache-dir", self.dir / "scratch/eval", "--retries", "0")
        self.assert_ok(done, 5)
        self.assertIn(f"{self.dir}/scratch is a link", done.stderr)

    def test_an_endpoint_without_a_scheme_is_named(self):
        done = self.fvp("ensure", "org/model", env={"HF_ENDPOINT": "huggingface.co"})
        self.assert_ok(done, 2)
        self.assertIn("HF_ENDPOINT", done.stderr)

    def test_plan_says_what_a_fetch_would_fail_on(self):
        done = self.fvp("plan", self.manifest([{"name": "n", "source": self.hub.file_url("no")}]))
        self.assert_ok(done, 5)
        self.assertIn("404", done.stderr)

    def test_quiet_names_every_entry_that_failed(self):
        entries = [{"name": n, "source": self.hub.file_url(n), "optional": True} for n in ("no1", "no2")]
        done = self.fvp(self.manifest(entries), "--quiet")
        self.assert_ok(done, 3)
        for name in ("no1", "no2"):
            self.assertIn(name, done.stderr)

    def test_ranks_end_alike_when_the_manifest_is_bad(self):
        for command in ("plan", "status", "env"):
            self.assertEqual(self.mpirun(3, command, "absent.json").codes, [5, 5, 5])
        self.assertEqual(len(self.mpirun(3, "env").stdout.splitlines()), 4)

    def test_a_cache_below_a_file_is_a_usage_error(self):
        done = self.fvp(self.path, "--cache-dir", self.path + "/x", "--retries", "0")
        self.assert_ok(done, 2)
        self.assertIn("--cache-dir", done.stderr)

    def test_schema_version_and_help(self):
        schema = json.loads(self.fvp("schema").stdout)
        self.assertEqual(schema["$schema"], "https://json-schema.org/draft/2020-12/schema")
        self.assertRegex(self.fvp("--version").stdout, r"^fvprefetch \d+\.\d+\.\d+")
        text = self.fvp("--help").stdout
        self.assertIn("MANIFEST", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_the_manifest_may_come_from_standard_input(self):
        done = self.fvp("-", input=harness.Path(self.path).read_text())
        self.assert_ok(done)
        self.assertEqual(len(done.stdout.splitlines()), 2)

    def test_torch_home_takes_the_torch_entries(self):
        entry = {"name": "t", "source": self.hub.file_url("a.pth"), "dest": "torch/hub/checkpoints/a.pth"}
        done = self.fvp(self.manifest([entry]), env={"TORCH_HOME": str(self.dir / "torch-home")})
        self.assertEqual(self.paths(done.stdout)["t"], f"{self.dir}/torch-home/hub/checkpoints/a.pth")

    def test_a_present_file_is_a_hit_and_a_wrong_one_is_replaced(self):
        place = self.eval_cache / "models/a.pth"
        place.parent.mkdir(parents=True)
        place.write_bytes(b"\x07mine")
        loose = self.manifest([{"name": "a.pth", "source": self.hub.file_url("a.pth")}])
        self.assert_ok(self.fvp(loose))
        self.assertEqual((place.read_bytes(), self.hub.stats()["requests"]), (b"\x07mine", 0))
        strict = self.manifest(
            [{"name": "a.pth", "source": self.hub.file_url("a.pth"), "sha256": harness.sha256(self.data)}]
        )
        done = self.fvp(strict)
        self.assert_ok(done)
        self.assertEqual(place.read_bytes(), self.data)
        self.assertIn(harness.sha256(b"\x07mine"), done.stderr)

    def test_sigterm_ends_it_with_143_and_nothing_published(self):
        self.hub.faults({"path": "/files/a.pth", "kind": "stall", "after_bytes": 100})
        process = self.start(self.manifest([{"name": "a.pth", "source": self.hub.file_url("a.pth")}]))
        self.wait_for("the first bytes", lambda: any(p.stat().st_size for p in self.unfinished()))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 143, err)
        self.assertIn("SIGTERM", err)
        self.assertFalse((self.eval_cache / "models/a.pth").exists())
        self.assertEqual(len(self.unfinished()), 1)  # and the next run goes on with it

    def test_hashing_a_present_file_ends_with_a_signal_and_at_the_deadline(self):
        present = self.eval_cache / "models/huge.pth"
        present.parent.mkdir(parents=True)
        with present.open("wb") as file:
            file.truncate(1 << 40)  # no blocks on the disk, and an hour's worth of hashing
        path = self.manifest([{"name": "huge.pth", "source": self.hub.file_url("huge.pth"), "sha256": "0" * 64}])
        self.assert_ok(self.fvp(path, "--deadline", "1s"), 6)
        process = self.start(path)

        def reads():
            words = harness.Path(f"/proc/{process.pid}/io").read_text().split()
            return int(words[words.index("rchar:") + 1]) > 1 << 28

        self.wait_for("the command to read the file", reads)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM, err)
        self.assertTrue(present.exists())

    def test_required_mpi_without_a_launcher_is_exit_13(self):
        path = self.manifest([{"name": "a.pth", "source": str(self.dir / "home")}])
        done = self.fvp(path, "--require-mpi")
        self.assert_ok(done, 13)
        self.assertIn("mpirun", done.stderr)

    def test_progress_in_a_file_has_no_carriage_return(self):
        done = self.fvp(self.path)
        self.assertNotIn("\r", done.stderr)
        self.assertLess(len(done.stderr.splitlines()), 10)
        self.assertEqual(self.fvp(self.path, "--quiet").stderr, "")


if __name__ == "__main__":
    harness.main()
