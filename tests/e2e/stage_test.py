"""Copies on the nodes' own disks, by --stage."""

import fcntl
import json
import os
import threading

import harness
import nodes


class Stage(nodes.OnNodes):
    def setUp(self):
        super().setUp()
        self.weights = self.hub.put("models/org/model/weights.safetensors", os.urandom(3_000_000))
        self.hub.put("models/org/model/nested/config.json", b'{"a": 1}\n')
        self.url_file = self.hub.put("files/amt-s.pth", os.urandom(2_000_000))
        self.path = self.manifest([
            {"name": "model", "source": "org/model"},
            {"name": "amt", "source": self.hub.file_url("amt-s.pth"), "sha256": harness.sha256(self.url_file)},
            {"name": "resnet", "source": self.hub.file_url("amt-s.pth"), "dest": "torch/hub/checkpoints/resnet.pth"},
        ])

    def stage(self, ranks, *args, code=0, env=None):
        done = self.run_on(ranks, self.path, "--stage", self.local / "job", "--json", *args, env=env)
        self.assertEqual(done.codes, [code] * len(ranks), done.stderr)
        return json.loads(done.stdout), done.stderr

    def snapshot(self, number):
        [folder] = (self.dir / f"node{number}/job/hub/models--org--model/snapshots").iterdir()
        return folder

    def assert_whole(self, number):
        job = self.dir / f"node{number}/job"
        self.assertEqual((job / "eval/models/amt").read_bytes(), self.url_file)
        self.assertEqual((job / "eval/torch/hub/checkpoints/resnet.pth").read_bytes(), self.url_file)
        self.assertEqual((self.snapshot(number) / "weights.safetensors").read_bytes(), self.weights)
        self.assertTrue((self.snapshot(number) / "nested/config.json").is_symlink())
        self.assert_nothing_private(number)

    def bytes_of_all(self):
        return self.site_bytes() + len(self.url_file)  # one URL has two places

    def test_every_node_has_a_copy_and_nothing_is_sent_or_read_twice(self):
        cold, err = self.stage([0, 0, 1, 2, 2])
        self.assertEqual(cold["exit_code"], 0)
        self.assertEqual(self.hub.stats()["body_bytes"], self.bytes_of_all())
        for entry in cold["entries"]:
            self.assertEqual(entry["state"], "staged")
            self.assertTrue(entry["path"].startswith(str(self.local / "job")), entry["path"])
        self.assertEqual(len(cold["stage"]["nodes"]), 3)
        self.assertEqual(cold["stage"]["bytes_read"], self.bytes_of_all())
        self.assertIn("on 3 nodes", err)
        for number in (0, 1, 2):
            self.assert_whole(number)

        self.hub.reset()
        warm, err = self.stage([0, 1, 2])
        self.assertEqual(self.hub.stats()["requests"], 0)
        self.assertEqual(warm["stage"]["bytes_read"], 0)
        self.assertEqual([entry["path"] for entry in warm["entries"]], [entry["path"] for entry in cold["entries"]])
        self.assertIn("all of it was there", err)

    def test_a_new_node_gets_what_the_others_have(self):
        self.stage([0])
        report, _ = self.stage([0, 1])
        self.assertEqual([node["files"] for node in report["stage"]["nodes"]], [0, 4])
        self.assert_whole(1)

    def test_the_real_client_reads_a_copy_offline(self):
        self.stage([0, 1])
        script = "import huggingface_hub as h; print(h.snapshot_download('org/model'))"
        done = self.run_command([harness.oracle_python(), "-c", script], env={
            "HF_HUB_CACHE": str(self.dir / "node1/job/hub"), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"})
        self.assert_ok(done)
        self.assertEqual(done.stdout.strip(), str(self.snapshot(1)))

    def test_a_node_whose_disk_is_too_small_uses_the_shared_copy(self):
        self.small_disk(1, "1m")
        report, err = self.stage([0, 1, 2])
        self.assertEqual([node["error"] and node["error"]["name"] for node in report["stage"]["nodes"]],
                         [None, "no_space", None])
        self.assertIn("uses the shared copy", err)
        for number in (0, 2):
            self.assert_whole(number)
        self.assert_nothing_private(1)

    def test_a_disk_that_fills_up_on_the_way_leaves_nothing_half_there(self):
        self.small_disk(1, "4m")
        self.stage([0, 1, 2], "--no-space-check")
        for number in (0, 2):
            self.assert_whole(number)
        self.assert_nothing_private(1)
        for file in self.node(1).rglob("*"):
            if file.name in ("amt", "resnet.pth"):
                self.assertEqual(file.read_bytes(), self.url_file)
            if file.name == "weights.safetensors":
                self.assertEqual(file.read_bytes(), self.weights)

    def test_required_and_min_nodes_make_it_everybodys_failure(self):
        self.small_disk(1, "1m")
        report, err = self.stage([0, 1, 1, 2], "--stage-required", code=9)
        self.assertEqual(report["error"]["name"], "no_space")
        self.assertIn("while staging to", err)
        self.stage([0, 1, 2], "--min-nodes", "3", code=9)
        self.stage([0, 1, 2], "--min-nodes", "2")

    def test_one_process_says_that_it_waits_for_another_one(self):
        self.assert_ok(self.fvp(self.path))
        lock = self.node(0) / "job/eval/.fvprefetch/locks/unload.lock"
        lock.parent.mkdir(parents=True)
        with open(lock, "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            process = self.start(self.path, "--stage", self.node(0) / "job")
            hangs = threading.Timer(harness.PATIENCE, process.kill)
            self.addCleanup(hangs.cancel)
            hangs.start()
            said = []
            while "waiting for " not in (said[-1] if said else ""):
                said.append(process.stderr.readline())
                self.assertTrue(said[-1], "".join(said))  # the end
            self.assertIn(f"held by pid {os.getpid()}", said[-1])
        _, rest = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 0, "".join(said) + rest)
        self.assert_whole(0)

    def test_one_process_stages_too(self):
        done = self.fvp(self.path, "--stage", self.node(0) / "job")
        self.assert_ok(done)
        self.assert_whole(0)
        self.assertTrue(all(path.startswith(str(self.node(0))) for path in self.paths(done.stdout).values()))

    def test_processes_of_one_node_that_no_mpi_unites_have_one_copy(self):
        self.be_launcher()
        step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_MPI_TYPE": "none"}
        runs = [self.start(self.path, "--stage", self.node(0) / "job", "--json", env={**step, "SLURM_PROCID": str(rank)})
                for rank in range(4)]
        for run in runs:
            _, err = run.communicate(timeout=harness.PATIENCE)
            self.assertEqual(run.returncode, 0, err)
        self.assertEqual(self.hub.stats()["body_bytes"], self.bytes_of_all())
        self.assert_whole(0)

    def test_a_relative_folder_is_refused_before_anything_is_done(self):
        done = self.fvp(self.path, "--stage", "local")
        self.assert_ok(done, 2)
        self.assertIn("hint:", done.stderr)
        self.assertEqual(self.hub.stats()["requests"], 0)


if __name__ == "__main__":
    harness.main()
