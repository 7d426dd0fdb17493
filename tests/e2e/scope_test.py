"""Caches that are all nodes', and caches that each node has for itself: found out, and one download in each case."""

import io
import json
import os
import zipfile

import harness
import nodes


class Scope(nodes.OnNodes):
    def setUp(self):
        super().setUp()
        self.weights = self.hub.put("models/org/model/weights.safetensors", os.urandom(3_000_000))
        self.url_file = self.hub.put("files/amt-s.pth", os.urandom(2_000_000))
        self.path = self.manifest([
            {"name": "model", "source": "org/model"},
            {"name": "amt", "source": self.hub.file_url("amt-s.pth")},
            {"name": "resnet", "source": self.hub.file_url("amt-s.pth"), "dest": "torch/hub/checkpoints/resnet.pth"},
        ])
        self.own_eval = ["--cache-dir", self.local / "eval"]
        self.own_hub = ["--hf-cache-dir", self.local / "hub"]

    def fetch(self, ranks, *args, code=0, env=None):
        done = self.run_on(ranks, self.path, "--json", "--visible-timeout", "1s", *args, env=env)
        self.assertEqual(done.codes, [code] * len(ranks), done.stderr)
        return json.loads(done.stdout), done.stderr

    def assert_sent_once(self):
        self.assertEqual(self.hub.stats()["body_bytes"], self.site_bytes() + len(self.url_file))

    def assert_urls(self, number):
        self.assertEqual((self.node(number) / "eval/models/amt").read_bytes(), self.url_file)
        self.assertEqual((self.node(number) / "eval/torch/hub/checkpoints/resnet.pth").read_bytes(), self.url_file)

    def assert_snapshot(self, number):
        [weights] = (self.node(number) / "hub").glob("models--org--model/snapshots/*/weights.safetensors")
        self.assertEqual(weights.read_bytes(), self.weights)

    def test_shared_caches_are_one_download_and_no_copy(self):
        report, _ = self.fetch([0, 0, 1, 2])
        self.assert_sent_once()
        self.assertEqual({entry["state"] for entry in report["entries"]}, {"fetched"})
        for number in (0, 1, 2):
            self.assertEqual(list(self.node(number).iterdir()), [])

    def test_each_nodes_own_caches_are_filled_by_one_download(self):
        report, _ = self.fetch([0, 1, 1, 2], *self.own_eval, *self.own_hub)
        self.assert_sent_once()
        self.assertEqual(report["entries"][1]["path"], str(self.local / "eval/models/amt"))
        for number in (0, 1, 2):
            self.assert_urls(number)
            self.assert_snapshot(number)
            self.assert_nothing_private(number)

        self.hub.reset()
        self.fetch([0, 1, 1, 2], *self.own_eval, *self.own_hub)
        self.assertEqual(self.hub.stats()["requests"], 0)
        # The job comes to lie on a node that has nothing yet, which may be the first.
        self.fetch([0, 3], *self.own_eval, *self.own_hub)
        self.assertEqual(self.hub.stats()["requests"], 0)
        self.assert_urls(3)

    def test_what_is_unpacked_is_unpacked_once_and_copied(self):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("top/hubconf.py", "x = 1\n")
        self.hub.put("files/code.zip", data.getvalue())
        self.path = self.manifest([{"name": "code", "source": self.hub.file_url("code.zip"), "unpack": True,
                                    "strip_components": 1, "dest": "torch/hub/owner_repo_main"}])
        self.fetch([0, 1, 2], *self.own_eval)
        self.assertEqual(self.hub.stats()["body_bytes"], len(data.getvalue()))
        for number in (0, 1, 2):
            self.assertEqual((self.node(number) / "eval/torch/hub/owner_repo_main/hubconf.py").read_text(), "x = 1\n")

    def test_one_of_the_caches_may_be_shared(self):
        self.fetch([0, 1], *self.own_eval)
        self.assert_sent_once()
        self.assert_urls(1)
        self.assertFalse((self.node(1) / "hub").exists())
        self.assertEqual(len(list(self.hf_cache.glob("models--org--model/snapshots/*/weights.safetensors"))), 1)

    def test_torch_home_of_each_node_is_filled_too(self):
        self.fetch([0, 1], env={"TORCH_HOME": str(self.local / "torch")})
        self.assert_sent_once()
        self.assertEqual((self.node(1) / "torch/hub/checkpoints/resnet.pth").read_bytes(), self.url_file)

    def test_who_says_that_they_are_shared_is_told_that_they_are_not(self):
        _, err = self.fetch([0, 1], *self.own_eval, "--scope", "shared", code=14)
        self.assertIn("does not see", err)

    def test_who_says_that_they_are_each_nodes_own_may_be_wrong(self):
        self.fetch([0, 1], "--scope", "node")
        self.assert_sent_once()
        self.assertEqual(list(self.node(1).iterdir()), [])

    def test_a_node_that_has_no_room_for_its_own_fails_the_job(self):
        self.small_disk(1, "1m")
        _, err = self.fetch([0, 1, 2], *self.own_eval, *self.own_hub, code=9)
        self.assertIn("while filling the cache of node", err)
        self.assert_nothing_private(1)


if __name__ == "__main__":
    harness.main()
