"""verify: what is on disk is read again, and --repair fetches what is wrong and nothing else."""

import json
import os
import signal

import harness

WRITE = "import sys; from huggingface_hub import snapshot_download; print(snapshot_download(sys.argv[1]))"
READ = """
import hashlib, os, sys
from huggingface_hub import snapshot_download
folder = snapshot_download(sys.argv[1])
for name in sys.argv[2:]:
    print(hashlib.sha256(open(os.path.join(folder, name), "rb").read()).hexdigest())
"""


class Verify(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.files = {
            "w.safetensors": b"\x06w" * 100_000,  # LFS: named by its sha256
            "config.json": b'{"x": 1}\n',  # small: named by git's object id
            "sub/vocab.txt": b"a\nb\n",
        }
        for path, data in self.files.items():
            self.hub.put("models/org/model/" + path, data)
        self.data = self.hub.put("files/a.pth", b"\x05a" * 2500)
        self.path = self.manifest(
            [
                {"name": "a.pth", "source": self.hub.file_url("a.pth")},
                {"name": "model", "source": "org/model"},
            ]
        )
        self.url_file = self.eval_cache / "models/a.pth"

    def fetch(self):
        """A complete cache, and a hub that has counted nothing yet."""
        done = self.fvp(self.path)
        self.assert_ok(done)
        self.snapshot = harness.Path(self.paths(done.stdout)["model"])
        self.hub.reset()

    def written(self, path):
        """What tells that the file was written or replaced. Reading it, as verify does, moves its st_atime."""
        status = harness.Path(path).resolve().stat()
        return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def flip(self, path, at=5):
        """One bit of what `path` leads to; size and times stay."""
        real = harness.Path(path).resolve()
        before = real.stat()
        data = bytearray(real.read_bytes())
        data[at] ^= 1
        real.write_bytes(bytes(data))
        os.utime(real, ns=(before.st_atime_ns, before.st_mtime_ns))
        return bytes(data)

    def verify(self, code, *options, manifest=None):
        done = self.fvp("verify", manifest or self.path, "--json", *options)
        self.assert_ok(done, code)
        document = json.loads(done.stdout)
        self.assertEqual((document["schema"], document["exit_code"]), (1, code))
        document["by_path"] = {f["path"]: f for e in document["entries"] for f in e["files"]}
        document["states"] = {p: f["state"] for p, f in document["by_path"].items()}
        return document

    def oracle(self, code, *args, **env):
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = self.run_command([harness.oracle_python(), "-c", code, *args], {**quiet, **env})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.split()

    def sent(self):
        stats = self.hub.stats()
        return stats["requests"], stats["body_bytes"]

    # --- looking ---------------------------------------------------------------------------------

    def test_a_good_cache_is_ok_and_nobody_is_asked(self):
        self.fetch()
        found = self.verify(0)
        self.assertEqual([e["state"] for e in found["entries"]], ["ok", "ok"])
        self.assertEqual(found["totals"]["files_read"], 4)
        self.assertEqual(found["totals"]["bytes_read"], sum(map(len, self.files.values())) + len(self.data))
        self.assertEqual(found["by_path"]["config.json"]["algorithm"], "git-sha1")
        self.verify(0, "--repair")  # nothing is wrong, so there is nothing to ask either
        self.assertEqual(self.sent(), (0, 0))

    def test_a_flipped_bit_is_named_with_both_digests(self):
        self.fetch()
        bad = self.flip(self.snapshot / "w.safetensors")
        self.flip(self.snapshot / "config.json")
        self.flip(self.url_file)
        done = self.fvp("verify", self.path)
        self.assert_ok(done, 8)
        expected, actual = harness.sha256(self.files["w.safetensors"]), harness.sha256(bad)
        self.assertIn(f"corrupt  w.safetensors, expected sha256 {expected}, actual {actual}\n", done.stdout)
        self.assertIn(f"w.safetensors has sha256 {actual}, expected {expected}", done.stderr)
        self.assertIn("--repair", done.stderr)
        self.assertEqual(
            self.verify(8)["states"],
            {"a.pth": "corrupt", "w.safetensors": "corrupt", "config.json": "corrupt", "sub/vocab.txt": "ok"},
        )
        self.assertEqual(self.sent(), (0, 0))
        # What a hit goes by cannot tell.
        self.assert_ok(self.fvp(self.path))

    def test_truncated_dangling_and_absent_files(self):
        self.fetch()
        weights = (self.snapshot / "w.safetensors").resolve()
        os.truncate(weights, 1000)
        (self.snapshot / "config.json").resolve().unlink()
        (self.snapshot / "sub/vocab.txt").unlink()
        self.url_file.unlink()
        found = self.verify(8)
        self.assertEqual(
            found["states"],
            {"a.pth": "missing", "w.safetensors": "corrupt", "config.json": "missing", "sub/vocab.txt": "missing"},
        )
        told = found["by_path"]["w.safetensors"]
        self.assertEqual((told["size"], told["actual_size"]), (len(self.files["w.safetensors"]), 1000))
        self.assertEqual(told["actual"], harness.sha256(weights.read_bytes()))
        weights.unlink()
        self.verify(12)
        self.assertEqual(self.sent(), (0, 0))

    def test_what_was_never_fetched_is_missing_and_optional_entries_fail_nothing_else(self):
        found = self.verify(12)
        self.assertEqual([e["state"] for e in found["entries"]], ["missing", "missing"])
        self.fetch()
        optional = self.manifest(
            [
                {"name": "model", "source": "org/model"},
                {"name": "no", "source": self.hub.file_url("no"), "optional": True},
            ],
            "optional.json",
        )
        self.verify(3, manifest=optional)
        self.assertEqual(self.sent(), (0, 0))

    def test_what_nothing_tells_of_is_unverifiable(self):
        self.url_file.parent.mkdir(parents=True)
        self.url_file.write_bytes(b"\x07ine")
        mine = self.dir / "mine.pth"
        mine.write_bytes(b"\x07ine")
        url = {"name": "a.pth", "source": self.hub.file_url("a.pth")}
        path = {"name": "mine", "source": str(mine)}
        found = self.verify(0, manifest=self.manifest([url, path]))
        self.assertEqual(found["totals"]["files_unverifiable"], 2)
        self.assertEqual([e["state"] for e in found["entries"]], ["unverifiable"] * 2)
        pins = {"sha256": harness.sha256(b"\x07ine"), "size": 4}
        self.verify(0, manifest=self.manifest([{**url, **pins}, {**path, **pins}]))
        pins["sha256"] = harness.sha256(b"other")
        found = self.verify(8, manifest=self.manifest([{**url, **pins}, {**path, **pins}]))
        self.assertEqual([e["state"] for e in found["entries"]], ["corrupt"] * 2)
        # A path of the user's own is never written to.
        self.verify(8, "--repair", manifest=self.manifest([{**path, **pins}]))
        self.assertEqual(mine.read_bytes(), b"\x07ine")
        self.assertEqual(self.sent(), (0, 0))

    def test_a_pin_of_the_manifest_counts_beside_the_list(self):
        self.fetch()
        entry = {"name": "m", "source": "org/model", "filename": "config.json"}
        right = {**entry, "sha256": harness.sha256(self.files["config.json"])}
        self.verify(0, manifest=self.manifest([right]))
        wrong = {**entry, "sha256": harness.sha256(b"other")}
        self.assertEqual(self.verify(8, manifest=self.manifest([wrong]))["states"], {"config.json": "corrupt"})
        self.verify(8, "--repair", manifest=self.manifest([wrong]))
        self.assertEqual((self.snapshot / "config.json").read_bytes(), self.files["config.json"])
        self.assertEqual(self.unfinished(), [])

    def test_a_cache_that_python_wrote(self):
        [folder] = self.oracle(WRITE, "org/model")
        self.hub.reset()
        model = self.manifest([{"name": "model", "source": "org/model"}])
        self.verify(0, manifest=model)
        self.flip(folder + "/config.json")
        self.assertEqual(self.verify(8, manifest=model)["states"]["config.json"], "corrupt")
        # Older clients leave no list: then the names of the blobs are all there is.
        for listing in self.hf_cache.glob("models--org--model/trees/*"):
            listing.unlink()
        found = self.verify(8, manifest=model)
        self.assertEqual(found["entries"][0]["listed_by"], "snapshot")
        self.assertEqual(
            found["states"], {"w.safetensors": "ok", "config.json": "corrupt", "sub/vocab.txt": "ok"}
        )
        self.assertEqual(self.sent(), (0, 0))
        self.verify(0, "--repair", manifest=model)
        self.assertEqual(self.sent()[1], len(self.files["config.json"]))
        self.verify(0, manifest=model)

    # --- repair ----------------------------------------------------------------------------------

    def test_repair_fetches_exactly_what_is_wrong(self):
        self.fetch()
        self.flip(self.snapshot / "w.safetensors")
        (self.snapshot / "sub/vocab.txt").resolve().unlink()
        self.flip(self.url_file)
        good = self.written(self.snapshot / "config.json")
        found = self.verify(0, "--repair")
        self.assertTrue(all(e["repaired"] for e in found["entries"]))
        self.assertEqual(found["repair"]["status"], "ok")
        wrong = len(self.files["w.safetensors"]) + len(self.files["sub/vocab.txt"]) + len(self.data)
        requests, body_bytes = self.sent()
        self.assertEqual(body_bytes, wrong)
        self.assertEqual(requests, 5)  # a Hub file is two: the Hub's redirect, and the bytes
        self.assertEqual(self.written(self.snapshot / "config.json"), good)
        self.assertEqual(self.unfinished(), [])
        self.verify(0)
        told = self.oracle(READ, "org/model", *self.files, HF_HUB_OFFLINE="1")
        self.assertEqual(told, [harness.sha256(data) for data in self.files.values()])
        self.assertEqual(self.url_file.read_bytes(), self.data)

    def test_repair_leaves_good_entries_alone_and_a_shared_blob_is_read_once(self):
        self.fetch()
        both = self.manifest(
            [
                {"name": "one", "source": "org/model", "filename": "w.safetensors"},
                {"name": "two", "source": "org/model", "include": ["*.safetensors"]},
                {"name": "a.pth", "source": self.hub.file_url("a.pth")},
            ]
        )
        self.assert_ok(self.fvp(both))
        self.assertEqual(self.verify(0, manifest=both)["totals"]["files_read"], 2)
        self.hub.reset()
        self.flip(self.snapshot / "w.safetensors")
        found = self.verify(0, "--repair", manifest=both)
        self.assertEqual([e["name"] for e in found["repair"]["entries"]], ["one", "two"])
        self.assertEqual(self.sent(), (2, len(self.files["w.safetensors"])))
        self.verify(0, manifest=both)

    def test_a_blob_in_a_shared_store_is_replaced_and_never_written_to(self):
        self.fetch()
        blob = (self.snapshot / "w.safetensors").resolve()
        store = self.dir / "store"
        store.mkdir()
        blob.rename(store / blob.name)
        blob.symlink_to(store / blob.name)
        self.verify(0)
        bad = self.flip(blob)
        self.verify(0, "--repair")
        self.assertEqual((store / blob.name).read_bytes(), bad)
        self.assertFalse(blob.is_symlink())
        self.assertEqual(blob.read_bytes(), self.files["w.safetensors"])
        self.verify(0)

    def test_a_file_whose_link_is_gone_is_linked_to_a_good_blob_only(self):
        self.fetch()
        blob = (self.snapshot / "config.json").resolve()
        (self.snapshot / "config.json").unlink()
        self.verify(12)
        self.verify(0, "--repair")
        self.assertEqual(self.sent(), (0, 0))
        self.flip(blob)
        (self.snapshot / "config.json").unlink()
        self.verify(0, "--repair")
        self.assertEqual(self.sent(), (2, len(self.files["config.json"])))
        self.verify(0)

    def test_two_repairs_at_once_fetch_it_once(self):
        self.fetch()
        self.flip(self.snapshot / "w.safetensors")
        self.flip(self.url_file)
        both = [self.start("verify", self.path, "--repair") for _ in range(2)]
        for process in both:
            _, err = process.communicate(timeout=harness.PATIENCE)
            self.assertEqual(process.returncode, 0, err)
        self.assertEqual(self.sent()[1], len(self.files["w.safetensors"]) + len(self.data))
        self.verify(0)

    def test_what_cannot_be_repaired_stays_and_says_why(self):
        self.fetch()
        bad = self.flip(self.snapshot / "config.json")
        (self.hub.root / "models/org/model/config.json").unlink()
        found = self.verify(5, "--repair", "--retries", "0")
        self.assertEqual(found["entries"][1]["error"]["name"], "not_found")
        self.assertEqual((self.snapshot / "config.json").read_bytes(), bad)
        self.verify(8)
        self.hub.reset()
        self.verify(8, "--repair", "--offline")
        self.assertEqual(self.sent(), (0, 0))

    # --- ends ------------------------------------------------------------------------------------

    def huge(self):
        path = self.dir / "huge.bin"
        path.touch()
        os.truncate(path, 8 << 40)  # sparse: hours of reading
        return self.manifest([{"name": "huge", "source": str(path), "sha256": "0" * 64}])

    def test_sigterm_ends_it_with_143(self):
        process = self.start("verify", self.huge(), "--json")
        line = process.stderr.readline()
        self.assertIn("verifying 1 file, 8.8 TB", line)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 143, err)
        self.assertIn("SIGTERM", err)
        self.assertEqual(json.loads(out)["entries"][0]["files"][0]["state"], "unchecked")

    def test_the_deadline_ends_it(self):
        done = self.fvp("verify", self.huge(), "--deadline", "200ms")
        self.assert_ok(done, 6)
        self.assertIn("deadline", done.stderr)

    def test_ranks_read_nothing_twice(self):
        self.fetch()
        self.flip(self.url_file)
        done = self.mpirun(3, "verify", self.path)
        self.assertEqual(done.codes, [8, 0, 0], done.stderr)
        self.assertEqual(done.stdout.count("a.pth  corrupt"), 1, done.stdout)


if __name__ == "__main__":
    harness.main()
