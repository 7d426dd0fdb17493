"""Whatever a server or the way to it does, a file ends in the right bytes or in the right error.

The hub's faults (tests/support/faults.h) one after the other, each on files of its own: one pinned by
its sha256, and one of which nothing is known but the strong ETag that the server sends. Those that
one connection meets come in one run together, since each only waits for its own retries; those that
a second connection meets come on files of 32 MiB, from a server so slow that more connections pay.
"""

import json
import os
import random
import re
import socket
import subprocess
import sys
import threading

import harness

MIB = 1 << 20
SMALL = 200_000
LARGE = 32 * MIB  # as many as four connections may pay
PINS = ("sha256", "etag")

# Runs a command and tells how much memory it had at most. By itself, since what it begins with
# counts as well, and a test that has held large files is larger than what it measures.
MEASURE = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL).returncode
with open(sys.argv[1], "w") as out:
    json.dump({"code": code, "kib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}, out)
"""


def once(kind, **fields):
    return {"kind": kind, "times": 1, **fields}


def later(kind, **fields):
    """Lets the first answer pass."""
    return {"kind": kind, "skip": 1, "times": 1, **fields}


class Transfer(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.random = random.Random(11)
        self.content = {}
        self.entries = []

    def add(self, name, size, *rules, pin="sha256"):
        """A file, its entry, and the rules for it with their path."""
        data = self.hub.put(f"files/{name}", self.random.randbytes(size))
        self.content[name] = data
        entry = {"name": name, "source": self.hub.file_url(name)}
        if pin == "sha256":
            entry["sha256"] = harness.sha256(data)
        self.entries.append(entry)
        return [{"path": f"/files/{name}", **rule} for rule in rules]

    def run_all(self, *options, code=0):
        done = self.fvp(self.manifest(self.entries), "--json", "--keep-going", "--max-active", "64", *options)
        self.assert_ok(done, code)
        return {entry["name"]: entry for entry in json.loads(done.stdout)["entries"]}, done

    def published(self, name):
        return self.eval_cache / "models" / name

    def assert_right(self, name):
        self.assertTrue(self.published(name).exists(), name)
        self.assertTrue(self.published(name).read_bytes() == self.content[name], f"{name} has other bytes")

    def assert_absent(self, name):
        self.assertFalse(self.published(name).exists(), name)

    def all_hit(self):
        """No rule was idle: each fault of the table has happened."""
        rules = self.hub._call("GET", "/_testhub/faults")
        self.assertEqual([rule for rule in rules if rule["hits"] == 0], [])

    def sent(self, name):
        return self.hub.stats()["by_path"][f"/files/{name}"]["body_bytes"]

    def requests(self, name):
        return self.hub.stats()["by_path"][f"/files/{name}"]["requests"]

    def python_server(self, answer):
        """`answer(connection, number)` for each connection, on a thread of its own."""
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(harness.PATIENCE)
        threads = []

        def one(connection, number):
            with connection:
                connection.settimeout(harness.PATIENCE)
                try:
                    answer(connection, number)
                except OSError:
                    pass  # the client has left

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=one, args=(connection, len(threads)), daemon=True))
                threads[-1].start()

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()

        def end():
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            listener.close()
            acceptor.join(harness.PATIENCE)
            for thread in threads:
                thread.join(harness.PATIENCE)

        self.addCleanup(end)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class OneConnection(Transfer):
    """What a file goes through that comes over one connection."""

    def add_all(self, table, pins=PINS):
        rules = []
        for name, row in table.items():
            for pin in pins:
                rules += self.add(f"{name}.{pin}", SMALL, *row, pin=pin)
        return rules

    def names(self, table, pins=PINS):
        for name in table:
            for pin in pins:
                yield f"{name}.{pin}"

    def test_each_byte_of_what_was_cut_or_held_up_comes_once(self):
        table = {f"cut-{tenth}0": [once("cut", after_bytes=SMALL * tenth // 10)] for tenth in range(10)}
        table["stall-99"] = [once("stall", after_bytes=SMALL * 99 // 100)]
        for status in (429, 500, 502, 503, 504):
            table[f"first-{status}"] = [once("status", status=status)]
            if status != 429:  # each holds up all others
                table[f"then-{status}"] = [once("cut"), later("status", status=status)]
            table[f"wait-{status}"] = [once("cut"), later("status", status=status, headers={"Retry-After": "1"})]
        self.hub.faults(*self.add_all(table))
        _, done = self.run_all("--stall-timeout", "1s", "--verbose")
        self.all_hit()
        for name in self.names(table):
            with self.subTest(name=name):
                self.assert_right(name)
                self.assertEqual(self.sent(name), SMALL)
        self.assertEqual(self.unfinished(), [])
        for name in self.names([name for name in table if name.startswith("wait-")]):
            # Half a second at least for the second retry, behind what the server asked for.
            told = re.search(rf"`{name}`: .*: {name[5:8]} .*, again in ([0-9.]+) s", done.stderr)
            self.assertGreaterEqual(float(told[1]), 1.5, name)

    def test_what_was_reset_or_trickled_is_gone_on_with(self):
        table = {
            "reset": [once("reset")],
            "slow": [once("throttle", bytes_per_second=500)],
        }
        self.hub.faults(*self.add_all(table))
        self.run_all("--stall-timeout", "1s")
        self.all_hit()
        for name in self.names(table):
            with self.subTest(name=name):
                self.assert_right(name)
                self.assertEqual(self.requests(name), 2)
                self.assertLess(self.sent(name), 2 * SMALL)

    def test_what_is_not_the_rest_of_the_file_is_not_put_behind_its_beginning(self):
        table = {
            "whole": [once("cut"), later("no_ranges")],  # 200 where a range was asked for
            "from-the-first": [once("cut"), once("wrong_range")],
            "from-behind": [once("cut"), once("wrong_range", after_bytes=SMALL * 3 // 4)],
            "another-etag": [once("cut"), later("other_etag")],
        }
        # Where a digest decides, the ETag does not.
        requests = {"whole": 2, "from-the-first": 3, "from-behind": 3, "another-etag": 3, "another-etag.sha256": 2}
        self.hub.faults(*self.add_all(table))
        self.run_all()
        self.all_hit()
        for name in self.names(table):
            with self.subTest(name=name):
                self.assert_right(name)
                self.assertEqual(self.requests(name), requests.get(name, requests[name.rpartition(".")[0]]))

    def test_a_flipped_byte_is_found_where_a_digest_is_known_and_the_file_comes_again(self):
        self.hub.faults(*self.add("flip", SMALL, once("flip")))
        self.run_all()
        self.all_hit()
        self.assert_right("flip")
        self.assertEqual(self.sent("flip"), 2 * SMALL)

    def test_a_connection_that_is_cut_nine_times_needs_one_retry_since_each_piece_is_a_good_one(self):
        size = 12 * MIB
        self.hub.faults(*self.add("long", size, {"kind": "cut", "after_bytes": size // 10, "times": 9}))
        self.run_all("--retries", "1", "--connections", "1")
        self.assert_right("long")
        self.assertEqual(self.sent("long"), size)
        self.assertEqual(self.requests("long"), 10)

    def test_what_does_not_end_is_the_right_error_and_publishes_nothing(self):
        half = {"kind": "cut", "after_bytes": SMALL // 2}
        table = {
            "cut": ([half | {"after_bytes": 0}], 6),
            "reset": ([{"kind": "reset", "after_bytes": 0}], 6),
            "stall": ([{"kind": "stall", "after_bytes": 0}], 6),
            "slow": ([{"kind": "throttle", "bytes_per_second": 500}], 6),
            "500": ([{"kind": "status", "status": 500}], 6),
            "503": ([half, {"kind": "status", "status": 503, "skip": 1}], 6),
            "429": ([{"kind": "status", "status": 429}], 7),
            "403": ([half, {"kind": "status", "status": 403, "skip": 1}], 4),
            "404": ([half, {"kind": "status", "status": 404, "skip": 1}], 5),
            "loop": ([{"kind": "redirect_loop"}], 6),
            "wrong-range": ([half, {"kind": "wrong_range"}], 6),
        }
        rules = self.add_all({name: row[0] for name, row in table.items()})
        rules += self.add("another-etag.etag", SMALL, half, {"kind": "other_etag", "skip": 1}, pin="etag")
        table["another-etag"] = (None, 6)
        flip = self.add("flip.sha256", SMALL, {"kind": "flip"})
        self.hub.faults(*rules, *flip)
        table["flip"] = (None, 8)
        entries, _ = self.run_all("--stall-timeout", "1s", "--retries", "1", code=6)
        self.all_hit()
        for name, entry in entries.items():
            with self.subTest(name=name):
                self.assertEqual(entry["error"]["code"], table[name.rpartition(".")[0]][1])
                self.assert_absent(name)
                # What may be a limit of downloads at once is asked for when fewer of them run, too.
                limit = {"loo": 50, "403": 5, "429": 5, "503": 5}.get(name[:3], 4)
                self.assertLessEqual(self.requests(name), limit)
        # What was wrong is not left to be gone on with; what was only refused is.
        left = [path.name for path in self.unfinished()]
        self.assertEqual([name for name in left if "flip" in name], [])
        for name in entries:
            if name.startswith(("403", "404")):
                self.assertTrue([path for path in left if name in path], name)

    def test_a_retry_after_behind_the_deadline_is_not_waited_for(self):
        for status, code in ((429, 7), (503, 6)):
            with self.subTest(status=status):
                self.entries = []
                rules = self.add(f"{status}", SMALL, {"kind": "status", "status": status,
                                                      "headers": {"Retry-After": "3600"}})
                self.hub.faults(*rules)
                self.run_all("--deadline", "30m", code=code)
                self.assertEqual(self.requests(f"{status}"), 1)
                self.assert_absent(f"{status}")

    def test_a_head_that_trickles_ends_too(self):
        data = self.random.randbytes(SMALL)

        def answer(connection, number):
            connection.recv(1 << 16)
            if number > 0:
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + data)
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while True:  # a line each tenth of a second, until the client has had enough
                connection.sendall(b"X-Wait: a little\r\n")
                connection.settimeout(0.1)
                try:
                    if not connection.recv(1):
                        return
                except TimeoutError:
                    pass

        url = self.python_server(answer)
        self.content["a.pth"] = data
        self.entries = [{"name": "a.pth", "source": f"{url}/a.pth"}]
        entries, _ = self.run_all("--stall-timeout", "1s")
        self.assertEqual(entries["a.pth"]["requests"], 2)
        self.assert_right("a.pth")

    def test_a_signed_address_that_ends_in_mid_transfer_is_asked_for_again(self):
        data = self.hub.put("models/org/model/w.safetensors", self.random.randbytes(SMALL))
        self.hub.faults(
            {"path": "/lfs/*", **once("cut", after_bytes=SMALL // 2)},
            {"path": "/lfs/*", **later("status", status=403)},
        )
        self.entries = [{"name": "m", "source": "org/model", "filename": "w.safetensors"}]
        self.run_all()
        self.all_hit()
        (blob,) = (self.hf_cache / "models--org--model/blobs").iterdir()
        self.assertTrue(blob.read_bytes() == data)
        self.assertEqual(self.hub.stats()["body_bytes"], SMALL)


class SeveralConnections(Transfer):
    """What the second connection to a file meets is its own matter: the file is not begun anew."""

    def add_all(self, table, pin):
        rules = []
        for name, row in table.items():
            path = f"/files/{name}"
            # In front of what comes later in the list, so that a slower rate counts.
            rules.append({"path": path, "kind": "throttle", "bytes_per_second": 12 * MIB})
            rules += self.add(name, LARGE, *row, pin=pin)
        self.hub.faults(*rules)

    def check(self, table):
        self.run_all("--connections", "4", "--stall-timeout", "1s")
        self.all_hit()
        for name in table:
            with self.subTest(name=name):
                self.assert_right(name)
                self.assertGreater(self.requests(name), 1)
                self.assertLess(self.sent(name), LARGE * 5 // 4)
        self.assertEqual(self.unfinished(), [])
        self.assertGreater(self.hub.stats()["max_concurrent"], len(table))

    def broken(self):
        return {
            "cut": [later("cut", after_bytes=100_000)],
            "reset": [later("reset", after_bytes=100_000)],
            "stall": [later("stall", after_bytes=500_000)],
            "slow": [later("throttle", bytes_per_second=500)],
        }

    def refused(self):
        return {
            "429": [later("status", status=429)],
            "500": [later("status", status=500)],
            "403": [later("status", status=403)],
            "whole": [later("no_ranges")],
            "wrong-range": [once("wrong_range")],
            "another-etag": [later("other_etag")],
        }

    def test_it_breaks_and_the_digest_is_known(self):
        self.add_all(self.broken(), "sha256")
        self.check(self.broken())

    def test_it_breaks_and_only_the_etag_is_known(self):
        self.add_all(self.broken(), "etag")
        self.check(self.broken())

    def test_it_gets_something_else_and_the_digest_is_known(self):
        self.add_all(self.refused(), "sha256")
        self.check(self.refused())

    def test_it_gets_something_else_and_only_the_etag_is_known(self):
        self.add_all(self.refused(), "etag")
        self.check(self.refused())

    def test_it_brings_a_flipped_byte(self):
        at = LARGE * 3 // 4
        self.add_all({"flip": [once("flip", after_bytes=at)]}, "sha256")
        self.run_all("--connections", "4")
        self.all_hit()
        self.assert_right("flip")

    def test_memory_is_bounded_at_sixteen_connections(self):
        size = 256 * MIB
        (self.hub.root / "files").mkdir()
        with open(self.hub.root / "files/large", "wb") as file:
            file.truncate(size)
        self.hub.faults({"path": "/files/*", "kind": "throttle", "bytes_per_second": 8 * MIB})
        manifest = self.manifest([{"name": "large", "source": self.hub.file_url("large")}])
        told = self.dir / "told.json"
        self.assert_ok(
            self.run_command([sys.executable, "-c", MEASURE, told, self.command(), manifest, "--connections", "16"])
        )
        used = json.loads(told.read_text())
        at_once = self.hub.stats()["max_concurrent"]
        harness.say(f"memory: {used['kib'] // 1024} MiB at most with {at_once} connections for 256 MiB, bound 64 MiB")
        self.assertEqual(used["code"], 0)
        self.assertEqual(self.published("large").stat().st_size, size)
        self.assertGreater(at_once, 1)
        self.assertLess(used["kib"], 64 * 1024)


class Meanwhile(Transfer):
    """What happens to the server, the file or the cache while a file is on its way."""

    # Sends half of the file, and nothing more until it is taken back.
    SILENT = (once("stall", after_bytes=SMALL // 2), {"kind": "stall", "skip": 1, "after_bytes": 0})

    def begin(self, *options):
        """A run that has half of the file, from a server that is silent then."""
        process = self.start(self.manifest(self.entries), "--retries", "12", "--verbose", *options)
        self.wait_for("half of the file", lambda: self.there() >= SMALL // 2)
        return process

    def there(self):
        return max((part.stat().st_size for part in self.unfinished()), default=0)

    def end(self, process, code=0):
        out, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, code, out + err)

    def replace(self, name):
        """As a server's owner does it: the file that is being read stays whole. Then it is sent again."""
        data = self.random.randbytes(SMALL)
        new = self.hub.put(f"files/{name}.new", data)
        os.replace(self.hub.root / f"files/{name}.new", self.hub.root / f"files/{name}")
        self.hub.no_faults()
        return new

    def test_another_file_of_that_size_is_taken_whole_when_nothing_is_pinned(self):
        self.hub.faults(*self.add("a", SMALL, *self.SILENT, pin="etag"))
        process = self.begin("--stall-timeout", "1s")
        self.content["a"] = self.replace("a")
        self.end(process)
        self.assert_right("a")

    def test_another_file_of_that_size_is_refused_where_the_digest_is_known(self):
        self.hub.faults(*self.add("a", SMALL, *self.SILENT))
        process = self.begin("--stall-timeout", "1s")
        self.replace("a")
        self.end(process, 8)
        self.assert_absent("a")
        self.assertEqual(self.unfinished(), [])

    def test_a_server_that_is_restarted_sends_only_what_was_missing(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.hub.close()
        self.hub = harness.Hub(self.dir / "restarted", "--port", str(port))
        self.hub.faults(*self.add("a", SMALL, *self.SILENT))
        process = self.begin()
        self.hub.process.kill()
        self.hub.process.wait(harness.PATIENCE)
        self.hub.process.stderr.close()
        (self.dir / "restarted.port.json").unlink()
        heard = []

        def refused():
            heard.append(process.stderr.readline())
            return "onnect" in heard[-1] and "again in" in heard[-1]

        self.wait_for("a refused connection", refused)
        self.hub = harness.Hub(self.dir / "restarted", "--port", str(port))
        self.addCleanup(self.hub.close)
        self.end(process)
        self.assert_right("a")
        self.assertEqual(self.sent("a"), SMALL - SMALL // 2)

    def test_two_runs_without_a_lock_onto_one_target(self):
        for pin in PINS:
            with self.subTest(pin=pin):
                self.entries = []
                self.hub.faults(*self.add(pin, SMALL, {"kind": "stall", "after_bytes": SMALL // 9}, pin=pin))
                manifest = self.manifest(self.entries)
                runs = [
                    self.start(manifest, "--lock", "none", "--stall-timeout", "1s", "--retries", "99")
                    for _ in range(2)
                ]
                self.wait_for("both to have begun", lambda: len(self.unfinished()) == 2)
                self.hub.no_faults()
                for run in runs:
                    self.end(run)
                self.assert_right(pin)
                self.assertEqual(self.sent(pin), 2 * SMALL)  # neither took the other's for its own
                self.assertEqual(self.unfinished(), [])


if __name__ == "__main__":
    harness.main()
