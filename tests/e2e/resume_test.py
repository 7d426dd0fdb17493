"""A download that was killed is gone on with: at most one block of each connection comes twice.

The block is 1 MiB: so much may arrive before the journal is written again (or what comes in a tenth
of a second, where that is more; the hub is throttled so that it is not). What the server counts as
sent and the kernel still had in its buffers when we were killed comes on top, once per connection
and kill; on loopback with a throttled sender that is at most a piece that it writes at once.
"""

import json
import os
import random
import signal
import time

import harness

MIB = 1 << 20
BLOCK = MIB
IN_FLIGHT = MIB
KILLS = 5


class Resume(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.data = self.hub.put("files/w.pth", random.Random(7).randbytes(24 * MIB))
        entry = {"name": "w.pth", "source": self.hub.file_url("w.pth"), "sha256": harness.sha256(self.data)}
        self.path = self.manifest([entry])
        self.file = self.eval_cache / "models/w.pth"
        self.hub.faults({"path": "/files/*", "kind": "throttle", "bytes_per_second": 8 * MIB})

    def on_disk(self):
        return max((part.stat().st_blocks * 512 for part in self.unfinished()), default=0)

    def body_bytes(self):
        return self.hub.stats()["body_bytes"]

    def run_until(self, size):
        process = self.start(self.path, "--connections", "2")
        self.wait_for(f"{size} bytes", lambda: self.on_disk() >= size or process.poll() is not None)
        return process

    def finish(self):
        self.hub.no_faults()
        done = self.fvp(self.path, "--json")
        self.assert_ok(done)
        self.assertEqual(self.file.read_bytes(), self.data)
        self.assertEqual(self.unfinished(), [])
        self.assertEqual(list(self.dir.rglob("partials/*")), [])
        return json.loads(done.stdout)["entries"][0]

    def test_killed_again_and_again_each_byte_comes_about_once(self):
        for kill in range(1, KILLS + 1):
            process = self.run_until(kill * len(self.data) // (KILLS + 1))
            process.kill()
            process.wait(harness.PATIENCE)
            self.assertEqual(process.returncode, -signal.SIGKILL)
            self.assertFalse(self.file.exists())
        entry = self.finish()
        self.assertEqual(entry["state"], "resumed")
        twice = self.body_bytes() - len(self.data)
        print(f"{KILLS} kills: {twice} of {len(self.data)} bytes came twice", flush=True)
        self.assertLessEqual(twice, KILLS * 2 * (BLOCK + IN_FLIGHT))

    def test_sigterm_leaves_what_had_come(self):
        process = self.run_until(6 * MIB)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 143)
        print(f"ended {time.monotonic() - begin:.2f} s after the signal", flush=True)
        sent = self.body_bytes()
        self.assertGreater(sent, 5 * MIB)
        entry = self.finish()
        self.assertEqual(entry["state"], "resumed")
        self.assertLessEqual(self.body_bytes() - len(self.data), 2 * IN_FLIGHT)

    def test_another_file_under_that_address_is_not_gone_on_with(self):
        process = self.run_until(6 * MIB)
        process.kill()
        process.wait(harness.PATIENCE)
        self.data = self.hub.put("files/w.pth", random.Random(8).randbytes(24 * MIB))
        self.path = self.manifest([{"name": "w.pth", "source": self.hub.file_url("w.pth")}])
        self.hub.no_faults()
        self.assert_ok(self.fvp(self.path))
        self.assertEqual(self.file.read_bytes(), self.data)

    def test_a_journal_that_lies_costs_one_more_download(self):
        process = self.run_until(6 * MIB)
        process.kill()
        process.wait(harness.PATIENCE)
        (journal,) = self.dir.rglob("partials/*.json")
        lie = json.loads(journal.read_text())
        lie["done"] = [[0, 20 * MIB]]
        journal.write_text(json.dumps(lie))
        (part,) = self.unfinished()
        os.truncate(part, 20 * MIB)
        self.finish()

    def test_what_a_run_on_another_host_let_go_of_is_gone_on_with(self):
        process = self.run_until(6 * MIB)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=harness.PATIENCE)
        (journal,) = self.dir.rglob("partials/*.json")
        told = json.loads(journal.read_text())
        self.assertIsNone(told["owner"])
        self.assertEqual(told["durable"], told["done"])
        told["boot"] = "another machine"
        journal.write_text(json.dumps(told))
        there = sum(end - begin for begin, end in told["done"])
        self.hub.no_faults()
        done = self.fvp(self.path, "--json")
        self.assert_ok(done)
        self.assertEqual(self.file.read_bytes(), self.data)
        self.assertEqual(json.loads(done.stdout)["entries"][0]["bytes_fetched"], len(self.data) - there)

    def test_what_another_host_left_is_copied_and_not_touched(self):
        process = self.run_until(6 * MIB)
        process.kill()
        process.wait(harness.PATIENCE)
        (journal,) = self.dir.rglob("partials/*.json")
        told = json.loads(journal.read_text())
        told["boot"] = told["owner"]["boot"] = "another machine"
        told["durable"] = told["done"]  # as if it had been synced
        there = sum(end - begin for begin, end in told["done"])
        journal.write_text(json.dumps(told))
        (part,) = self.unfinished()
        before = part.stat()
        self.hub.no_faults()
        self.hub.reset()
        done = self.fvp(self.path, "--json")
        self.assert_ok(done)
        self.assertEqual(self.file.read_bytes(), self.data)
        self.assertGreater(there, 4 * MIB)
        self.assertEqual(json.loads(done.stdout)["entries"][0]["bytes_fetched"], len(self.data) - there)
        after = part.stat()
        self.assertEqual((after.st_ino, after.st_mtime_ns), (before.st_ino, before.st_mtime_ns))
        self.assertNotEqual(self.file.stat().st_ino, before.st_ino)


if __name__ == "__main__":
    harness.main()
