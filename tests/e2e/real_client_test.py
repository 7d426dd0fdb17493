"""The real huggingface_hub reads what we wrote, and we take what it wrote, byte for byte."""

import json

import harness

READ = """
import hashlib, json, os, sys
from huggingface_hub import hf_hub_download, snapshot_download, scan_cache_dir
repo, files = sys.argv[1], sys.argv[2:]
folder = snapshot_download(repo)
out = {"folder": folder, "sha256": {}}
for f in files:
    path = hf_hub_download(repo, f)
    out["sha256"][f] = hashlib.sha256(open(path, "rb").read()).hexdigest()
    assert os.path.samefile(path, os.path.join(folder, f)), (path, folder)
info = scan_cache_dir()
out["warnings"] = [str(w) for w in info.warnings]
out["repos"] = sorted(r.repo_id for r in info.repos)
print(json.dumps(out))
"""
WRITE = "import sys; from huggingface_hub import snapshot_download; print(snapshot_download(sys.argv[1]))"


class RealClient(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.files = {
            "model.safetensors": b"\x06w" * 300_000,
            "config.json": b'{"x": 1}\n',
            "empty.txt": b"",
            "sub/dir/na\xc3\xafve name.txt".encode("latin1").decode("utf8"): b"text\n",
        }
        for path, data in self.files.items():
            self.hub.put("models/org/model/" + path, data)
        self.python = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        self.path = self.manifest([{"name": "model", "source": "org/model"}])

    def oracle(self, code, *args, **env):
        done = self.run_command([harness.oracle_python(), "-c", code, *args], {**self.python, **env})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_python_offline_opens_every_file_that_we_fetched(self):
        done = self.fvp(self.path)
        self.assert_ok(done)
        self.hub.reset()
        told = json.loads(self.oracle(READ, "org/model", *self.files, HF_HUB_OFFLINE="1"))
        self.assertEqual(told["folder"], self.paths(done.stdout)["model"])
        self.assertEqual(told["sha256"], {p: harness.sha256(d) for p, d in self.files.items()})
        self.assertEqual((told["warnings"], told["repos"]), ([], ["org/model"]))
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_python_online_finds_our_cache_warm(self):
        self.assert_ok(self.fvp(self.path))
        self.hub.reset()
        self.oracle(WRITE, "org/model")
        self.assertEqual(self.hub.stats()["body_bytes"], 0)

    def test_what_python_wrote_is_a_hit_for_us(self):
        folder = self.oracle(WRITE, "org/model").strip()
        self.hub.reset()
        done = self.fvp(self.path)
        self.assert_ok(done)
        self.assertEqual(self.paths(done.stdout)["model"], folder)
        self.assertEqual(self.hub.stats()["body_bytes"], 0)
        self.hub.reset()
        self.assert_ok(self.fvp(self.path))
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_both_write_the_same_cache(self):
        def tree(cache):
            return {
                str(p.relative_to(cache)): (p.readlink() if p.is_symlink() else p.read_bytes() if p.is_file() else None)
                for p in cache.rglob("*")
                if ".fvprefetch" not in p.parts and ".locks" not in p.parts and p.name != "CACHEDIR.TAG"
            }

        self.assert_ok(self.fvp(self.path))
        theirs = self.dir / "theirs"
        self.oracle(WRITE, "org/model", HF_HUB_CACHE=str(theirs))
        self.assertEqual(tree(self.hf_cache), tree(theirs))


if __name__ == "__main__":
    harness.main()
