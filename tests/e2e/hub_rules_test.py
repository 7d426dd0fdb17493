"""The Hub's rules, on the wire: who is asked, when, how often, and what is done when it does not answer."""

import json
import os
import socket

import harness


def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class HubRules(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.weights = self.hub.put("models/org/model/w.safetensors", b"\x06w" * 100_000)
        self.hub.put("models/org/model/config.json", b"{}\n")
        self.path = self.manifest([{"name": "m", "source": "org/model"}])

    def by_path(self):
        return {path: counts["requests"] for path, counts in self.hub.stats()["by_path"].items()}

    def test_a_snapshot_costs_one_request_per_file_and_its_redirect(self):
        self.assert_ok(self.fvp(self.path))
        asked = self.by_path()
        self.assertEqual(sum(n for p, n in asked.items() if "/resolve/" in p), 2, asked)
        self.assertEqual(sum(n for p, n in asked.items() if "/revision/" in p), 1, asked)
        self.assertEqual(sum(n for p, n in asked.items() if "/tree/" in p), 1, asked)
        # Where the two led: the cache of small files and the second host.
        self.assertEqual(self.hub.stats()["requests"], 6, asked)

    def test_no_large_body_is_sent_before_every_repository_let_us_in(self):
        self.hub.put("models/org/gated/w.safetensors", b"\x07g" * 1000)
        self.hub.put("models/org/gated/.testhub.json", json.dumps({"gated": True, "token": "hf_other"}).encode())
        path = self.manifest([{"name": "m", "source": "org/model"}, {"name": "g", "source": "org/gated"}])
        done = self.fvp(path, "--json")
        self.assert_ok(done, 4)
        self.assertIn("gated", done.stderr)
        self.assertEqual(json.loads(done.stdout)["error"]["reason"], "GatedRepo")
        self.assertEqual([p for p in self.by_path() if p.startswith("/lfs/")], [])

    def test_the_check_of_access_costs_no_request(self):
        self.hub.put("models/org/other/w.safetensors", b"\x07o" * 1000)
        path = self.manifest([{"name": "m", "source": "org/model"}, {"name": "o", "source": "org/other"}])
        self.assert_ok(self.fvp(path))
        asked = self.by_path()
        self.assertEqual(sum(n for p, n in asked.items() if "/resolve/" in p), 3, asked)
        self.assertEqual(self.hub.stats()["requests"], 2 + 2 + 2 * 3, asked)

    def test_after_a_429_nobody_asks_before_its_time(self):
        self.hub.faults({"path": "*/resolve/*", "kind": "status", "status": 429, "times": 1, "headers": {"Retry-After": "2"}})
        done = self.fvp(self.path, "--json")
        self.assert_ok(done)
        self.assertEqual(sum(n for p, n in self.by_path().items() if "/resolve/" in p), 3)

    def test_a_429_beyond_the_deadline_is_exit_7_with_the_time_to_come_back(self):
        for headers in ({"Retry-After": "3600"}, {"RateLimit": '"api";r=0;t=3600'}):
            with self.subTest(headers=headers):
                self.hub.faults({"path": "/api/*", "kind": "status", "status": 429, "headers": headers})
                done = self.fvp(self.path, "--deadline", "20s", "--json")
                self.assert_ok(done, 7)
                self.assertEqual(json.loads(done.stdout)["error"]["retry_after_seconds"], 3600)

    def test_a_hub_that_is_not_reached_leaves_what_the_cache_has(self):
        self.assert_ok(self.fvp(self.path))
        away = {"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"}
        done = self.fvp(self.path, "--refresh", "--retries", "0", env=away)
        self.assert_ok(done)
        self.assertIn("warning", done.stderr)
        self.assertIn("taking what the cache has", done.stderr)
        # What is not complete is no substitute.
        next((self.hf_cache / "models--org--model/snapshots").rglob("w.safetensors")).unlink()
        self.assert_ok(self.fvp(self.path, "--refresh", "--retries", "0", env=away), 6)

    def test_many_at_once_without_links(self):
        for i in range(40):
            self.hub.put(f"models/org/small/{i:02}.txt", b"%d\n" % i)
        path = self.manifest([{"name": "s", "source": "org/small"}])
        runs = [self.start(path, env={"HF_HUB_DISABLE_SYMLINKS": "1"}) for _ in range(5)]
        for run in runs:
            _, err = run.communicate(timeout=harness.PATIENCE)
            self.assertEqual(run.returncode, 0, err)
        files = [p for p in (self.hf_cache / "models--org--small/snapshots").rglob("*.txt")]
        self.assertEqual(sorted(p.read_bytes() for p in files), sorted(b"%d\n" % i for i in range(40)))

    def test_exit_7_says_when_to_come_back(self):
        self.hub.faults({"path": "/api/*", "kind": "status", "status": 429, "headers": {"Retry-After": "3600"}})
        done = self.fvp(self.path, "--deadline", "20s")
        self.assert_ok(done, 7)
        self.assertRegex(done.stderr, r"hint: run the same command again in 1 h")

    def test_a_lock_needs_the_hub_where_the_cache_has_no_list(self):
        self.assert_ok(self.fvp(self.path))
        for name in ("trees", ".fvprefetch/receipts"):
            for file in (self.hf_cache / "models--org--model" / name).iterdir():
                file.unlink()
        away = {"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"}
        self.assert_ok(self.fvp("lock", self.path, "--retries", "0", env=away), 6)

    def test_a_folder_does_not_stand_in_for_a_frozen_repository(self):
        self.assert_ok(self.fvp("lock", self.path))
        locked = self.path.replace(".json", ".lock.json")
        (self.dir / "org/model").mkdir(parents=True)
        done = self.fvp(locked, "--frozen")
        self.assert_ok(done, 2)
        self.assertIn("stands in", done.stderr)

    def test_a_small_pin_that_does_not_hold_is_exit_8_and_leaves_no_link(self):
        entry = {"name": "c", "source": "org/model", "filename": "config.json"}
        self.assert_ok(self.fvp(self.manifest([entry])))
        link = next((self.hf_cache / "models--org--model/snapshots").rglob("config.json"))
        link.unlink()
        self.assert_ok(self.fvp(self.manifest([{**entry, "sha256": harness.sha256(b"other")}])), 8)
        self.assertFalse(link.is_symlink())

    def test_very_many_files(self):
        many = int(os.environ.get("FVPREFETCH_TEST_MANY_FILES", "1500"))
        for i in range(many):
            self.hub.put(f"models/org/many/{i // 100:03}/{i:05}.txt", b"%d\n" % i)
        path = self.manifest([{"name": "many", "source": "org/many"}])
        done = self.fvp(path, "--json")
        self.assert_ok(done)
        self.assertEqual(json.loads(done.stdout)["totals"]["files"], many)
        self.hub.reset()
        warm = self.fvp(path, "--json")
        self.assert_ok(warm)
        self.assertEqual(json.loads(warm.stdout)["entries"][0]["state"], "hit")
        self.assertEqual(self.hub.stats()["requests"], 0)


if __name__ == "__main__":
    harness.main()
