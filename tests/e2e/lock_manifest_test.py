"""`fvprefetch lock` and --frozen: what is pinned, that a run by it asks the Hub's API nothing, and that
Python still reads the cache. (lock_test.py is about file locks.)"""

import json
import os

import harness

# What evaluation code does with the paths it is given, and what the Hub client needs to find a
# commit by itself: no ref and no list of files is there after a frozen run.
READ = """
import hashlib, json, os, sys
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
commit, folder, files = sys.argv[1], sys.argv[2], sys.argv[3:]
digest = lambda path: hashlib.sha256(open(path, "rb").read()).hexdigest()
out = {"by_path": {f: digest(os.path.join(folder, f)) for f in files}}
out["by_commit"] = {f: digest(hf_hub_download("org/model", f, revision=commit)) for f in files}
out["snapshot"] = snapshot_download("org/model", revision=commit, local_files_only=True)
try:
    hf_hub_download("org/model", files[0])
    out["by_branch"] = "found"
except LocalEntryNotFoundError:
    out["by_branch"] = "not found"
out["warnings"] = [str(w) for w in scan_cache_dir().warnings]
print(json.dumps(out))
"""


class LockManifest(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.files = {
            "model.safetensors": b"\x06w" * 300_000,
            "config.json": b'{"x": 1}\n',
            "sub/empty.txt": b"",
        }
        for path, data in self.files.items():
            self.hub.put("models/org/model/" + path, data)
        self.data = self.hub.put("files/a.pth", b"\x05a" * 250)
        self.mine = self.dir / "mine.pth"
        self.mine.write_bytes(b"\x07mine")
        self.path = self.manifest(
            [
                {"name": "a.pth", "source": self.hub.file_url("a.pth")},
                {"name": "model", "source": "org/model", "exclude": ["*.md"], "optional": True},
                {"name": "weights", "source": "org/model", "filename": "model.safetensors"},
                {"name": "mine", "source": str(self.mine)},
            ]
        )
        self.hub.put("models/org/model/README.md", b"# words\n")
        self.locked = self.dir / "manifest.lock.json"

    def lock(self):
        self.assert_ok(self.fvp(self.path))
        done = self.fvp("lock", self.path)
        self.assert_ok(done)
        self.assertEqual(done.stdout, str(self.locked) + "\n")
        return json.loads(self.locked.read_text())

    def cold(self):
        """Caches that have nothing, and a hub that has seen nothing."""
        self.eval_cache, self.hf_cache = self.dir / "eval2", self.dir / "hf2"
        self.env.update(HF_HUB_CACHE=str(self.hf_cache), FASTVIDEO_EVAL_CACHE=str(self.eval_cache))
        self.hub.reset()

    def edit(self, change):
        document = json.loads(self.locked.read_text())
        change({entry["name"]: entry for entry in document["entries"]})
        self.locked.write_text(json.dumps(document))

    def test_every_entry_is_pinned_in_its_own_fields(self):
        document = self.lock()
        self.assertEqual(document["version"], 1)
        url, model, weights, mine = document["entries"]
        self.assertEqual((url["sha256"], url["size"]), (harness.sha256(self.data), len(self.data)))
        self.assertRegex(model["revision"], "^[0-9a-f]{40}$")
        self.assertEqual((model["locked_from"], model["exclude"], model["optional"]), ("main", ["*.md"], True))
        large = self.files["model.safetensors"]
        pin = {"path": "model.safetensors", "size": len(large), "sha256": harness.sha256(large)}
        self.assertEqual([f["path"] for f in model["files"]], sorted(self.files))
        self.assertIn(pin, model["files"])
        self.assertEqual((weights["files"], weights["sha256"], weights["size"]), ([pin], pin["sha256"], pin["size"]))
        self.assertEqual(mine, {"name": "mine", "source": str(self.mine)})

    def test_it_is_the_same_file_each_time_and_the_lock_of_itself(self):
        self.lock()
        text = self.locked.read_bytes()
        self.assert_ok(self.fvp("lock", self.path))
        self.assertEqual(self.locked.read_bytes(), text)
        self.assertEqual(self.fvp("lock", self.locked, "--output", "-").stdout.encode(), text)
        self.assertEqual(self.fvp("lock", "-", "--output", "-", input=text.decode()).stdout.encode(), text)
        self.cold()
        self.assertEqual(self.fvp("lock", self.locked, "--output", "-").stdout.encode(), text)
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_it_is_made_from_a_cold_cache_too(self):
        path = self.manifest([{"name": "model", "source": "org/model", "revision": "main"}])
        self.assert_ok(self.fvp("lock", path))
        self.assertEqual(self.hub.stats()["body_bytes"], 0)
        self.assertFalse(self.hf_cache.exists())
        text = self.locked.read_bytes()
        self.assert_ok(self.fvp(path))
        self.assert_ok(self.fvp("lock", path))
        self.assertEqual(self.locked.read_bytes(), text)

    def test_a_cold_frozen_run_asks_the_api_nothing(self):
        self.lock()
        self.cold()
        done = self.fvp(self.locked, "--frozen")
        self.assert_ok(done)
        stats = self.hub.stats()
        self.assertEqual(stats["api_requests"], 0)
        folder = harness.Path(self.paths(done.stdout)["model"])
        self.assertEqual({p: (folder / p).read_bytes() for p in self.files}, self.files)
        self.assertFalse((folder / "README.md").exists())
        self.hub.reset()
        self.assert_ok(self.fvp(self.locked, env={"FVPREFETCH_FROZEN": "1"}))
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_a_locked_manifest_needs_no_api_without_frozen_either(self):
        self.lock()
        self.cold()
        for command in ("status", "plan"):
            done = self.fvp(command, self.locked, "--json")
            self.assert_ok(done)
            told = json.loads(done.stdout)
            self.assertEqual(told["totals"]["files"], 6)
            self.assertEqual(told["entries"][1]["files"][0]["digest_rule"], "manifest")
        self.assertEqual(self.hub.stats()["requests"], 0)
        self.assert_ok(self.fvp(self.locked))
        self.assertEqual(self.hub.stats()["api_requests"], 0)

    def test_a_branch_that_moved_is_followed_by_lock_with_refresh_only(self):
        old = self.lock()["entries"][1]["revision"]
        self.hub.put("models/org/model/config.json", b'{"x": 2}\n')
        commit = lambda *options: json.loads(self.fvp("lock", self.path, "--output", "-", *options).stdout)["entries"][1]["revision"]
        self.assertEqual(commit(), old)
        self.assertNotEqual(commit("--refresh"), old)
        # The test hub has only what the branch has now, and that is not taken for what was pinned.
        self.cold()
        done = self.fvp(self.locked, "--frozen")
        self.assert_ok(done, 3)  # `model` is optional
        self.assertNotIn("model", self.paths(done.stdout))
        self.assertEqual(self.hub.stats()["api_requests"], 0)

    def test_bytes_that_are_not_the_pinned_ones_are_not_published(self):
        self.lock()
        for name, digest, index in (("model", "git_sha1", 0), ("weights", "sha256", 0)):
            with self.subTest(name):
                text = self.locked.read_text()

                def lie(entries):
                    for entry in list(entries.values()):
                        if entry["name"] == name:
                            entry["files"][index][digest] = "0" * len(entry["files"][index][digest])
                            entry.pop("sha256", None)
                            entry.pop("optional", None)

                self.edit(lie)
                self.cold()
                done = self.fvp(self.locked, "--frozen", "--retries", "0", "--max-active", "1")
                self.assert_ok(done, 8)
                self.assertIn(name, done.stderr)
                self.assertEqual(list(self.hf_cache.rglob("blobs/" + "0" * 40 + "*")), [])
                self.assertEqual(self.unfinished(), [])
                self.locked.write_text(text)
                harness.shutil.rmtree(self.hf_cache)

    def test_frozen_refuses_what_is_not_pinned_on_every_rank(self):
        done = self.fvp(self.path, "--frozen")
        self.assert_ok(done, 2)
        for name in ("`a.pth`", "`model`", "`weights`"):
            self.assertIn(name, done.stderr)
        self.assertNotIn("`mine`", done.stderr)
        self.assertIn("fvprefetch lock", done.stderr)
        self.lock()
        for command in ("fetch", "plan", "status"):
            done = self.fvp(command, self.path, "--frozen")
            self.assert_ok(done, 2)
            self.assertIn(str(self.locked), done.stderr)
        self.assertEqual(self.mpirun(3, self.path, "--frozen").codes, [2, 2, 2])
        self.assert_ok(self.fvp("ensure", "org/model", "--frozen"), 2)
        self.assert_ok(self.fvp("ensure", self.mine, "--frozen"))
        self.assert_ok(self.fvp(self.locked, "--frozen", "--refresh"), 2)

    def test_a_url_that_nobody_has_seen_cannot_be_pinned(self):
        done = self.fvp("lock", self.path)
        self.assert_ok(done, 12)
        self.assertIn("`a.pth`", done.stderr)
        self.assertIn("fvprefetch MANIFEST", done.stderr)
        self.assertEqual((done.stdout, self.locked.exists()), ("", False))
        told = json.loads(self.fvp("lock", self.path, "--json").stdout)
        self.assertEqual(told["exit_code"], 12)

    def test_the_file_is_for_everybody_and_replaced_whole(self):
        old = os.umask(0o027)
        self.addCleanup(os.umask, old)
        self.lock()
        self.assertEqual(self.locked.stat().st_mode & 0o777, 0o640)
        before = self.locked.stat().st_ino
        self.assert_ok(self.fvp("lock", self.path))
        self.assertNotEqual(self.locked.stat().st_ino, before)
        self.assertEqual(self.unfinished(), [])
        done = self.fvp("lock", self.path, "--output", self.dir)
        self.assert_ok(done, 2)
        self.assert_ok(self.fvp("lock", "-", input="[]"), 2)
        self.assertIn("--output", self.fvp("lock", self.path, "--output", "no/such/folder/m.json").stderr)

    def test_only_one_rank_works(self):
        self.assert_ok(self.fvp(self.path))
        done = self.mpirun(3, "lock", self.path)
        self.assertEqual((done.codes, done.stdout), ([0, 0, 0], str(self.locked) + "\n"))
        self.assertEqual(self.mpirun(3, "lock", "absent.json").codes, [5, 5, 5])

    def test_verify_and_repair_go_by_the_pinned_list(self):
        self.lock()
        self.cold()
        self.assert_ok(self.fvp(self.locked, "--frozen"))
        self.assert_ok(self.fvp("verify", self.locked, "--frozen"))
        self.assert_ok(self.fvp("verify", self.path, "--frozen"), 2)
        blob = next(self.hf_cache.rglob("blobs/" + harness.sha256(self.files["model.safetensors"])))
        blob.write_bytes(b"X" * blob.stat().st_size)
        self.assert_ok(self.fvp("verify", self.locked), 8)
        self.hub.reset()
        self.assert_ok(self.fvp("verify", self.locked, "--repair", "--frozen"))
        self.assertEqual(blob.read_bytes(), self.files["model.safetensors"])
        self.assertEqual(self.hub.stats()["api_requests"], 0)

    def test_python_reads_what_a_frozen_run_fetched(self):
        commit = self.lock()["entries"][1]["revision"]
        self.cold()
        done = self.fvp(self.locked, "--frozen")
        self.assert_ok(done)
        folder = self.paths(done.stdout)["model"]
        self.hub.reset()
        read = self.run_command(
            [harness.oracle_python(), "-c", READ, commit, folder, *self.files],
            {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        )
        self.assertEqual(read.returncode, 0, read.stderr)
        told = json.loads(read.stdout)
        digests = {p: harness.sha256(d) for p, d in self.files.items()}
        self.assertEqual((told["by_path"], told["by_commit"]), (digests, digests))
        self.assertEqual((told["snapshot"], told["warnings"]), (folder, []))
        self.assertEqual(told["by_branch"], "not found")  # a frozen run writes no ref
        self.assertEqual(self.hub.stats()["requests"], 0)


if __name__ == "__main__":
    harness.main()
