"""The main job: cold, each byte is sent once whatever the number of ranks; warm, nothing is asked."""

import json
import os
import signal
import subprocess

import harness


class Job(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.weights = self.hub.put("models/org/model/weights.safetensors", b"\x01W" * 50_000)
        self.config = self.hub.put("models/org/model/config.json", b'{"a": 1}\n')
        self.hub.put("models/org/model/nested/dir/vocab.txt", b"a\nb\n")
        self.single = self.hub.put("models/org/single/raft.pth", b"\x02R" * 10_000)
        self.url_file = self.hub.put("files/amt-s.pth", b"\x03U" * 20_000)
        self.entries = [
            {"name": "model", "source": "org/model"},
            {"name": "raft", "source": "org/single", "filename": "raft.pth"},
            {"name": "amt-s.pth", "source": self.hub.file_url("amt-s.pth"), "sha256": harness.sha256(self.url_file)},
            {"name": "clip", "source": self.hub.file_url("amt-s.pth"), "dest": "clip/ViT.pt"},
        ]
        # Two destinations for one URL: its bytes go over the wire for each of them.
        self.expected_bytes = self.site_bytes() + len(self.url_file)

    def check_paths(self, stdout):
        paths = self.paths(stdout)
        self.assertEqual(list(paths), ["model", "raft", "amt-s.pth", "clip"])
        read = lambda *parts: harness.Path(*parts).read_bytes()
        self.assertEqual(read(paths["model"], "weights.safetensors"), self.weights)
        self.assertEqual(read(paths["model"], "nested/dir/vocab.txt"), b"a\nb\n")
        self.assertEqual(read(paths["raft"]), self.single)
        self.assertEqual(paths["amt-s.pth"], str(self.eval_cache / "models/amt-s.pth"))
        self.assertEqual(read(paths["amt-s.pth"]), self.url_file)
        self.assertEqual(paths["clip"], str(self.eval_cache / "clip/ViT.pt"))

    def check_cold(self):
        stats = self.hub.stats()
        self.assertEqual(stats["body_bytes"], self.expected_bytes)
        self.assertEqual(stats["cdn_authorization_seen"], 0)
        # One revision and one tree request per repository.
        self.assertEqual(stats["api_requests"], 4)

    def test_four_ranks_download_each_byte_once_and_a_warm_run_asks_nothing(self):
        manifest = self.manifest(self.entries)
        cold = self.mpirun(4, manifest)
        self.assert_ok(cold)
        self.assertEqual(cold.codes, [0, 0, 0, 0])
        self.check_paths(cold.stdout)
        self.check_cold()
        self.assertEqual(self.unfinished(), [])

        self.hub.reset()
        warm = self.mpirun(4, manifest)
        self.assert_ok(warm)
        self.assertEqual(warm.stdout, cold.stdout)
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_without_a_launcher_the_same_job_runs_alone(self):
        manifest = self.manifest(self.entries)
        cold = self.fvp(manifest)
        self.assert_ok(cold)
        self.check_paths(cold.stdout)
        self.check_cold()
        self.hub.reset()
        self.assert_ok(self.fvp(manifest, "--offline"))
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_the_token_goes_to_the_hub_and_not_to_the_second_host(self):
        done = self.fvp(self.manifest(self.entries), env={"HF_TOKEN": "hf_secret_word"})
        self.assert_ok(done)
        self.assertEqual(self.hub.stats()["cdn_authorization_seen"], 0)
        self.assertNotIn("hf_secret_word", done.stdout + done.stderr)
        for path in self.dir.rglob("*.json"):
            self.assertNotIn("hf_secret_word", path.read_text())

    def test_json_is_one_document_that_names_commit_states_and_counts(self):
        manifest = self.manifest(self.entries)
        cold = json.loads(self.fvp(manifest, "--json").stdout)
        self.assertEqual((cold["schema"], cold["status"], cold["exit_code"], cold["error"]), (1, "ok", 0, None))
        self.assertEqual([e["state"] for e in cold["entries"]], ["fetched"] * 4)
        self.assertEqual(cold["totals"]["bytes_fetched"], self.expected_bytes)
        self.assertEqual(cold["totals"]["requests"], self.hub.stats()["requests"])
        self.assertEqual(len(cold["entries"][0]["commit"]), 40)
        self.assertTrue(cold["entries"][0]["resolved_at"])
        warm = json.loads(self.fvp(manifest, "--json").stdout)
        self.assertEqual([e["state"] for e in warm["entries"]], ["hit"] * 4)
        self.assertEqual(warm["totals"]["requests"], 0)
        self.assertEqual(warm["lock"]["kind"], "none")

    def test_a_warm_run_writes_nothing_and_takes_no_lock(self):
        manifest = self.manifest(self.entries)
        self.assert_ok(self.fvp(manifest))

        def state():
            # ctime changes with any write, chmod or rename; opening a lock file leaves no trace, so
            # lock files are removed, and must not come back.
            return {p: p.lstat().st_ctime_ns for root in (self.hf_cache, self.eval_cache) for p in root.rglob("*")}

        for lock in [p for p in self.dir.rglob("*.lock")]:
            lock.unlink()
        before = state()
        self.assert_ok(self.fvp(manifest))
        self.assertEqual(state(), before)

    def test_a_missing_file_of_a_snapshot_is_fetched_alone(self):
        manifest = self.manifest(self.entries[:1])
        path = self.paths(self.fvp(manifest).stdout)["model"]
        pointer = harness.Path(path) / "weights.safetensors"
        pointer.resolve().unlink()
        self.hub.reset()
        self.assert_ok(self.fvp(manifest))
        self.assertEqual(pointer.read_bytes(), self.weights)
        self.assertEqual(self.hub.stats()["body_bytes"], len(self.weights))
        self.assertEqual(self.hub.stats()["api_requests"], 0)

    def test_refresh_asks_once_per_repository_and_follows_a_moved_branch(self):
        manifest = self.manifest(self.entries[:1])
        first = self.paths(self.fvp(manifest).stdout)["model"]
        self.hub.reset()
        self.assert_ok(self.fvp(manifest, "--refresh"))
        self.assertEqual(self.hub.stats()["requests"], 1)
        self.hub.put("models/org/model/config.json", b'{"a": 2}\n')
        self.assertEqual(self.paths(self.fvp(manifest).stdout)["model"], first)
        second = self.paths(self.fvp(manifest, "--refresh").stdout)["model"]
        self.assertNotEqual(second, first)
        self.assertEqual((harness.Path(second) / "config.json").read_bytes(), b'{"a": 2}\n')
        self.assertEqual(self.paths(self.fvp(manifest, "--offline").stdout)["model"], second)


class Pages(harness.EndToEnd):
    hub_options = ("--page-size", "2")

    def test_all_pages_of_a_listing_are_fetched(self):
        files = {f"dir{i % 3}/part{i}.bin": bytes([i + 1]) * 100 for i in range(7)}
        for path, data in files.items():
            self.hub.put("models/org/model/" + path, data)
        folder = self.paths(self.fvp(self.manifest([{"name": "m", "source": "org/model"}])).stdout)["m"]
        self.assertEqual({p: (harness.Path(folder) / p).read_bytes() for p in files}, files)
        self.assertGreater(self.hub.stats()["api_requests"], 3)


class Signals(harness.EndToEnd):
    def test_a_signal_to_rank_0_ends_every_rank_with_it(self):
        self.hub.put("files/a.pth", b"\x03U" * 20_000)
        self.hub.faults({"path": "/files/a.pth", "kind": "stall", "after_bytes": 100})
        path = self.manifest([{"name": "a.pth", "source": self.hub.file_url("a.pth")}])
        codes, wrapper = self.recording()
        job = subprocess.Popen(
            [harness.MPIEXEC, "-n", "3", *wrapper, self.command(), path],
            env=self.env, cwd=self.dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        self.addCleanup(lambda: job.poll() is None and job.kill())
        self.wait_for("the first bytes", lambda: any(p.stat().st_size for p in self.unfinished()))
        os.kill(self.pid_in(codes, 0), signal.SIGTERM)
        _, err = job.communicate(timeout=harness.PATIENCE)
        self.assertEqual(self.codes_in(codes, 3), [143] * 3, err)
        self.assertEqual(err.count("error:"), 1, err)
        self.assertEqual(len(self.unfinished()), 1)  # and the next run goes on with it
        self.assertEqual(list(self.dir.rglob("a.pth")), [self.hub.root / "files/a.pth"])


if __name__ == "__main__":
    harness.main()
