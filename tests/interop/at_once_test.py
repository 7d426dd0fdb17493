"""8 processes of huggingface_hub and 8 of ours on one cold cache: all succeed, each body is sent once,
and nobody ever sees a wrong byte.

FVPREFETCH_TEST_AT_ONCE is how often (3; `./tests/run soak`: 20).
"""

import json
import os
import subprocess

import interop

PROCESSES = 8
ROUNDS = int(os.environ.get("FVPREFETCH_TEST_AT_ONCE") or 3)
# Slow enough that whoever comes second finds the first at work.
THROTTLE = {"path": "/lfs/*", "kind": "throttle", "bytes_per_second": 2_000_000}

FILES = {
    "config.json": b'{"race": true}\n',
    "tokenizer.json": interop.noise("tokenizer", 60_000),
    "sub/dir/notes.md": b"# notes\n",
    "empty.txt": b"",
    "model-1.safetensors": interop.noise("first", 900_000),
    "model-2.safetensors": interop.noise("second", 700_000),
    "sub/extra.bin": interop.noise("extra", 300_000),
}


class Mixed:
    """The three generations beside each other."""

    name, version = "huggingface_hub", "all three"


@interop.for_each((*interop.PYTHONS, Mixed()), globals())
class AtOnce(interop.Interop):
    direction = "at once, 8 and 8"

    def setUp(self):
        super().setUp()
        for path, data in FILES.items():
            self.hub.put(f"models/org/race/{path}", data)
        self.env.update(interop.QUIET)
        self.go_reader, self.go_writer = os.pipe()
        self.addCleanup(lambda: self.go_writer is not None and os.close(self.go_writer))
        self.addCleanup(lambda: os.close(self.go_reader))

    def waiting(self, argv, stdin):
        """A process that is killed, when still there, at the end of the test."""
        process = subprocess.Popen(
            [str(a) for a in argv], env=self.env, cwd=self.dir, stdin=stdin, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

        def end():
            try:
                os.killpg(process.pid, interop.harness.signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.communicate()

        self.addCleanup(end)
        return process

    def ready(self, process):
        self.assertEqual(process.stdout.readline(), "ready\n", "it did not start")
        return process

    def python(self, client, count):
        argv = [client.interpreter(), interop.HERE / "python_racers.py", count, "org/race", self.hf_cache]
        return self.waiting(argv, self.go_reader)

    def pythons(self):
        if isinstance(self.client, Mixed):
            return [self.python(client, count) for client, count in zip(interop.PYTHONS, (3, 3, 2))]
        return [self.python(self.client, PROCESSES)]

    def us(self, manifest):
        wait_and_run = 'read -r go; exec "$@"'
        return self.waiting(["sh", "-c", wait_and_run, "sh", self.command(), "--mpi", "off", manifest], self.go_reader)

    def watcher(self, commit):
        expected = self.dir / "expected.json"
        expected.write_text(json.dumps({"commit": commit, "files": interop.content(FILES)}))
        self.hf_cache.mkdir()
        return self.waiting(["/usr/bin/python3", interop.HERE / "watcher.py", self.hf_cache, expected], subprocess.PIPE)

    def race(self):
        commit = self.commit(repo="models/org/race")
        manifest = self.manifest([{"name": "it", "source": "org/race"}])
        watcher = self.ready(self.watcher(commit))
        pythons = [self.ready(process) for process in self.pythons()]
        ours = [self.us(manifest) for _ in range(PROCESSES)]
        self.hub.reset()
        self.hub.faults(THROTTLE)
        os.close(self.go_writer)
        self.go_writer = None

        folder = str(self.hf_cache / "models--org--race/snapshots" / commit)
        for process in ours:
            out, err = process.communicate(timeout=interop.harness.PATIENCE)
            self.assertEqual((process.returncode, out), (0, f"it\t{folder}\n"), err)
        answers = []
        for process in pythons:
            out, err = process.communicate(timeout=interop.harness.PATIENCE)
            answers += [json.loads(line) for line in out.splitlines()]
            self.assertEqual(process.returncode, 0, f"{answers}\n{err}")
        self.assertEqual(answers, [{"path": folder}] * PROCESSES)

        seen, err = watcher.communicate("", timeout=interop.harness.PATIENCE)
        self.assertEqual(watcher.returncode, 0, err)
        seen = json.loads(seen)
        self.assertEqual(seen["wrong"], [])
        self.assertGreaterEqual(seen["hashed"], 2 * len(FILES))  # at least the last round saw all of it

        stats = self.hub.stats()
        twice = {
            path: counts for path, counts in stats["by_path"].items() if path.startswith("/lfs/") and counts["gets"] != 1
        }
        self.assertEqual(twice, {})
        self.assertEqual(stats["body_bytes"], sum(map(len, FILES.values())), stats["by_path"])
        self.assert_content(folder, FILES)
        self.assertEqual(self.unfinished(), [])
        scanned = self.value("scan_cache_dir", client=interop.NEWEST, cache_dir=str(self.hf_cache))
        self.assertEqual(scanned["warnings"], [])


def add_rounds():
    for base in [value for name, value in globals().items() if name.startswith("AtOnce_")]:
        for number in range(1, ROUNDS + 1):
            setattr(base, f"test_round_{number:02}", lambda self: self.race())


add_rounds()

if __name__ == "__main__":
    interop.main()
