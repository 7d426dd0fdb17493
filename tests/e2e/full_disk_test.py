"""A disk or a quota that is used up in the middle of a file: exit code 9, nothing wrong under its name,
what was complete stays, and when there is space the next run goes on with what had found some.
"""

import json
import random
import subprocess

import harness

MIB = 1 << 20
DISK = 12 * MIB
SIZE = 32 * MIB  # as many as four connections may pay
# What may come twice: the journal that tells it found no room any more. (Of four connections.)
FORGOTTEN = 4 * MIB


class FullDisk(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.data = self.hub.put("files/big", random.Random(5).randbytes(SIZE))
        self.good = self.hub.put("files/good", b"\x08good" * 10_000)
        self.disk = self.dir / "disk"
        self.disk.mkdir()
        self.throttle = {"path": "/files/big", "kind": "throttle", "bytes_per_second": 8 * MIB}
        self.hub.faults(self.throttle)

    def mount(self):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", self.disk], check=True)
        self.addCleanup(subprocess.run, ["umount", self.disk], check=True)

    def manifest_of_both(self, pinned):
        """The good one is there already: of two that are missing a busy machine may begin with either."""
        good = {"name": "good", "source": self.hub.file_url("good")}
        big = {"name": "big", "source": self.hub.file_url("big")}
        if pinned:
            big["sha256"] = harness.sha256(self.data)
        self.assert_ok(self.fvp(self.manifest([good]), "--cache-dir", self.disk))
        return self.manifest([good, big])

    def run_into_it(self, manifest, *options, env=None):
        done = self.fvp(
            manifest, "--cache-dir", self.disk, "--max-active", "1", "--connections", "4", "--json", *options, env=env
        )
        self.assert_ok(done, 9)
        self.assertRegex(done.stderr, r"(?m)hint: \S")
        self.assertFalse((self.disk / "models/big").exists())
        self.assertEqual((self.disk / "models/good").read_bytes(), self.good)
        return done

    def go_on(self, manifest, least):
        """There is space now. `least`: so many bytes must not come again."""
        self.hub.no_faults()
        self.hub.reset()
        done = self.fvp(manifest, "--cache-dir", self.disk, "--json")
        self.assert_ok(done)
        self.assertTrue((self.disk / "models/big").read_bytes() == self.data)
        self.assertEqual(self.unfinished(), [])
        entries = {entry["name"]: entry for entry in json.loads(done.stdout)["entries"]}
        self.assertEqual(entries["good"]["state"], "hit")
        self.assertEqual(entries["big"]["state"], "resumed")
        self.assertLessEqual(entries["big"]["bytes_fetched"], SIZE - least)
        self.assertLessEqual(self.hub.stats()["by_path"]["/files/big"]["body_bytes"], SIZE - least)

    def test_a_disk_that_is_full_in_the_middle_is_gone_on_with_when_there_is_space(self):
        for pinned in (True, False):
            with self.subTest(pinned=pinned):
                self.mount()
                self.hub.faults(self.throttle)
                manifest = self.manifest_of_both(pinned)
                self.run_into_it(manifest, "--no-space-check")
                self.assertGreater(self.hub.stats()["max_concurrent"], 1)
                subprocess.run(["mount", "-o", f"remount,size={3 * SIZE}", self.disk], check=True)
                self.go_on(manifest, DISK - FORGOTTEN)

    def test_a_disk_that_stays_full_loses_nothing_of_it(self):
        self.mount()
        manifest = self.manifest_of_both(True)
        for _ in range(3):
            self.run_into_it(manifest, "--no-space-check")
        subprocess.run(["mount", "-o", f"remount,size={3 * SIZE}", self.disk], check=True)
        self.go_on(manifest, DISK - FORGOTTEN)

    def test_a_file_of_which_nobody_told_the_size(self):
        self.mount()
        self.hub.faults(self.throttle, {"path": "/files/big", "kind": "no_length"})
        manifest = self.manifest_of_both(True)
        self.run_into_it(manifest)  # nothing to check before
        subprocess.run(["mount", "-o", f"remount,size={3 * SIZE}", self.disk], check=True)
        self.go_on(manifest, DISK - FORGOTTEN)

    def test_a_quota_that_is_used_up_is_named(self):
        manifest = self.manifest_of_both(True)
        quota = {"LD_PRELOAD": str(harness.BUILD / "tests/libquota.so"), "FVPREFETCH_TEST_QUOTA": str(DISK)}
        done = self.run_into_it(manifest, env=quota)
        self.assertIn("quota", done.stderr)
        self.go_on(manifest, DISK - FORGOTTEN)


if __name__ == "__main__":
    harness.main()
