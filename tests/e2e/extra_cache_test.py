"""A site's read-only cache comes first: what is complete there is used where it is and never fetched."""

import json
import os
import subprocess

import harness


class ExtraCache(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.hub.put("models/org/model/weights.safetensors", os.urandom(300_000))
        self.url_file = self.hub.put("files/amt-s.pth", os.urandom(200_000))
        self.other = self.hub.put("files/other.pth", os.urandom(100_000))
        self.site = self.dir / "site-cache"
        self.entries = [
            {"name": "model", "source": "org/model"},
            {"name": "amt", "source": self.hub.file_url("amt-s.pth"), "sha256": harness.sha256(self.url_file)},
            {"name": "torch", "source": self.hub.file_url("amt-s.pth"), "dest": "torch/hub/checkpoints/amt.pth"},
        ]
        self.path = self.manifest(self.entries)

    def fill(self, hub="hub", eval_cache="eval"):
        """By fvprefetch; then nobody may write there any more, root included."""
        self.site.mkdir()
        self.assert_ok(self.fvp(self.path, "--cache-dir", self.site / eval_cache, "--hf-cache-dir", self.site / hub))
        self.freeze()

    def freeze(self):
        subprocess.run(["mount", "--bind", self.site, self.site], check=True)
        self.addCleanup(subprocess.run, ["umount", self.site], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", self.site], check=True)
        self.hub.reset()

    def fetch(self, *args, code=0):
        done = self.fvp(self.path, "--extra-cache", self.site, "--json", *args)
        self.assert_ok(done, code)
        return json.loads(done.stdout)

    def assert_all_from_the_site(self, report):
        for entry in report["entries"]:
            self.assertEqual(entry["state"], "hit")
            self.assertTrue(entry["path"].startswith(str(self.site)), entry["path"])
        self.assertEqual(self.hub.stats()["requests"], 0)
        self.assertFalse(self.eval_cache.exists() or self.hf_cache.exists(), "something was written")

    def test_all_of_it_is_used_and_nothing_asked(self):
        self.fill()
        self.assert_all_from_the_site(self.fetch())

    def test_a_directory_may_be_both_caches_itself(self):
        self.fill(hub=".", eval_cache=".")
        self.assert_all_from_the_site(self.fetch())

    def test_what_is_missing_there_is_fetched_to_our_own(self):
        self.fill()
        self.entries.append({"name": "other", "source": self.hub.file_url("other.pth")})
        self.path = self.manifest(self.entries)
        report = self.fetch()
        self.assertEqual([entry["state"] for entry in report["entries"]], ["hit", "hit", "hit", "fetched"])
        self.assertEqual(self.hub.stats()["body_bytes"], len(self.other))
        self.assertEqual((self.eval_cache / "models/other").read_bytes(), self.other)

    def test_an_incomplete_snapshot_there_is_not_used(self):
        self.site.mkdir()
        self.assert_ok(self.fvp(self.path, "--cache-dir", self.site / "eval", "--hf-cache-dir", self.site / "hub"))
        for blob in (self.site / "hub").glob("models--org--model/blobs/*"):
            blob.unlink()
        self.freeze()
        report = self.fetch()
        self.assertEqual([entry["state"] for entry in report["entries"]], ["fetched", "hit", "hit"])
        self.assertTrue(report["entries"][0]["path"].startswith(str(self.hf_cache)))

    def test_another_file_under_a_pinned_name_is_not_used(self):
        (self.site / "eval/models").mkdir(parents=True)
        (self.site / "eval/models/amt").write_bytes(os.urandom(len(self.url_file)))
        self.freeze()
        report = self.fetch()
        self.assertEqual(report["entries"][1]["state"], "fetched")
        self.assertEqual((self.eval_cache / "models/amt").read_bytes(), self.url_file)

    def test_refresh_does_not_look_there(self):
        self.fill()
        report = self.fetch("--refresh")
        self.assertEqual({entry["state"] for entry in report["entries"]}, {"fetched"})

    def test_plan_and_status_know_it(self):
        self.fill()
        for command in ("plan", "status"):
            done = self.fvp(command, self.path, "--extra-cache", self.site, "--json")
            self.assert_ok(done)
            self.assertEqual({entry["state"] for entry in json.loads(done.stdout)["entries"]}, {"complete"})

    def test_it_can_be_staged_from_there(self):
        self.fill()
        report = self.fetch("--stage", self.dir / "node")
        self.assertEqual({entry["state"] for entry in report["entries"]}, {"staged"})
        self.assertEqual((self.dir / "node/eval/models/amt").read_bytes(), self.url_file)
        self.assertEqual(self.hub.stats()["requests"], 0)


if __name__ == "__main__":
    harness.main()
