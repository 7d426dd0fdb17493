"""SIGTERM to any one rank, in every phase in which a run may be made to wait, ends all ranks: with 143, and within
five seconds, which is what the command promises and a scheduler's time before SIGKILL is made for.

Two ranks under mpirun. A line for each goes to BUILD/tests/trees/summary.txt."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402

PROMISED = 5  # seconds
RANKS = 2
GIVES_UP = 30  # seconds until a rank that goes on is killed: it has failed already, and must not go on for minutes
ANSWER_BYTES_PER_SECOND = 5
SEES_OLD = f"""
export SLURM_NODEID={harness.RANK}
if [ $SLURM_NODEID != 0 ]; then mount --bind "$1" "$2" || exit 99; fi
shift 2
exec "$@"
"""


class Signals(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.env.update(OMPI_MCA_btl_vader_single_copy_mechanism="none", OMPI_MCA_btl_base_warn_component_unused="0")
        self.data = self.hub.put("files/a.pth", os.urandom(300_000))
        self.hub.put("models/org/model/config.json", b'{"a": 1}\n')
        self.url = [{"name": "a.pth", "source": self.hub.file_url("a.pth")}]
        self.repository = [{"name": "model", "source": "org/model"}]
        self.job = None

    def begin(self, *args, env=None, stdin=subprocess.DEVNULL, before=()):
        """`before`: what to put before a rank's command, and its wrapper's."""
        codes, wrapper = self.recording()
        self.codes = codes
        log = open(codes / "stderr", "w")
        self.addCleanup(log.close)
        self.job = subprocess.Popen([harness.MPIEXEC, "-n", str(RANKS), *map(str, before), *wrapper,
                                     self.command(), *map(str, args)],
                                    env={**self.env, **(env or {})}, cwd=self.dir, stdin=stdin, stdout=log, stderr=log)
        self.addCleanup(self.end)
        for rank in range(RANKS):
            self.pid_in(codes, rank)

    def end(self):
        for rank in range(RANKS):
            path = self.codes / f"pid.{rank}"
            if path.exists() and not (self.codes / str(rank)).exists():
                try:
                    os.kill(int(path.read_text()), signal.SIGKILL)
                except ProcessLookupError:
                    pass
        try:
            self.job.wait(GIVES_UP)
        except subprocess.TimeoutExpired:
            self.job.kill()
            self.job.wait()

    def told(self):
        return (self.codes / "stderr").read_text()

    def until(self, what, condition):
        """The phase has begun; a run that has ended meanwhile never will."""
        end = time.monotonic() + harness.PATIENCE
        while not condition():
            self.assertIsNone(self.job.poll(), f"the run ended before {what}:\n{self.told()}")
            self.assertLess(time.monotonic(), end, f"waited too long for {what}:\n{self.told()}")
            time.sleep(0.02)

    def slow(self, calls, **more):
        self.mark = self.dir / f"mark{time.monotonic_ns()}"
        return {"LD_PRELOAD": str(harness.BUILD / "tests/shims/libslow_calls.so"), "FVP_SLOW": calls,
                "FVP_SLOW_MARK": str(self.mark), **more}

    def check(self, phase, begin):
        """`begin` starts a run, and returns when rank 0 is in that phase."""
        for rank in range(RANKS):
            with self.subTest(rank=rank):
                if rank > 0:
                    self.doCleanups()
                    self.setUp()
                begin()
                began = time.monotonic()
                os.kill(self.pid_in(self.codes, rank), signal.SIGTERM)
                seconds = {}
                while len(seconds) < RANKS and time.monotonic() < began + GIVES_UP:
                    for each in range(RANKS):
                        if each not in seconds and (self.codes / str(each)).exists():
                            seconds[each] = time.monotonic() - began
                    time.sleep(0.01)
                codes = self.codes_in(self.codes, RANKS)
                took = [f"{seconds[each]:.1f} s" if each in seconds else f"more than {GIVES_UP} s" for each in range(RANKS)]
                self.note(f"{phase:28} TERM to rank {rank}: exit {codes}, after {', '.join(took)}")
                self.end()
                self.assertEqual(codes, [143] * RANKS, self.told())
                self.assertLess(max(seconds.values()), PROMISED, self.told())

    def note(self, line):
        print(line, flush=True)
        folder = harness.BUILD / "tests/trees"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "summary.txt", "a") as out:
            out.write(f"signals: {line}\n")

    # --- the phases ------------------------------------------------------------------------------

    def test_manifest_from_a_pipe(self):
        def begin():
            read, write = os.pipe()
            self.addCleanup(os.close, write)
            os.set_blocking(write, False)
            self.begin("-", stdin=read)
            os.close(read)
            # More than all pipes in between hold: when it is gone, rank 0 is reading.
            left = b'{"version": 1,' + b" " * 1_500_000

            def taken():
                nonlocal left
                try:
                    left = left[os.write(write, left):]
                except BlockingIOError:
                    pass
                return not left

            self.until("the manifest to be read", taken)

        self.check("manifest from a pipe", begin)

    def test_lock_of_another_program(self):
        def begin():
            self.hub.faults({"path": "/files/a.pth", "kind": "stall", "after_bytes": 1000})
            other = self.start(self.manifest(self.url), "--stall-timeout", "10m")
            self.wait_for("the other program's first bytes", lambda: any(p.stat().st_size for p in self.unfinished()))
            self.begin(self.manifest(self.url), "--verbose")
            self.until("waiting for the lock", lambda: "waiting for" in self.told())
            self.assertIsNone(other.poll())

        self.check("lock of another program", begin)

    def test_lock_files_that_are_fifos(self):
        # Whose open() waits for a writer. A run that does without them, and one that ends with an error, are right;
        # one that needs no signal is told here all the same.
        self.assert_ok(self.fvp(self.manifest(self.url)))
        locks = [path for path in self.dir.rglob("*.lock") if path.is_file()]
        self.assertTrue(locks, "no lock file")
        for lock in locks:
            lock.unlink()
            os.mkfifo(lock)
        (self.eval_cache / "models/a.pth").unlink()
        self.begin(self.manifest(self.url))
        began = time.monotonic()
        self.until_all_ended(began)
        codes = self.codes_in(self.codes, RANKS)
        self.note(f"{f'{len(locks)} lock files that are FIFOs':28} exit {codes}, after {time.monotonic() - began:.1f} s")
        self.assertNotIn(None, codes, self.told())
        self.assertEqual(len(set(codes)), 1, self.told())

    def until_all_ended(self, began):
        while None in self.codes_in(self.codes, RANKS) and time.monotonic() < began + GIVES_UP:
            time.sleep(0.05)

    def test_answer_that_drips(self):
        def begin():
            self.hub.faults({"path": "/api/*", "kind": "throttle", "bytes_per_second": ANSWER_BYTES_PER_SECOND})
            self.begin(self.manifest(self.repository))
            self.until("the request", lambda: self.hub.stats()["requests"] > 0)

        self.check("API answer that drips", begin)

    def test_download(self):
        def begin():
            self.hub.faults({"path": "/files/a.pth", "kind": "stall", "after_bytes": 1000})
            self.begin(self.manifest(self.url))
            self.until("some bytes", lambda: any(p.stat().st_size for p in self.unfinished()))

        self.check("downloading", begin)

    def test_unpacking(self):
        def begin():
            self.hub.put("files/many.tar", tar_of(2000))
            entry = {"name": "many", "source": self.hub.file_url("many.tar"), "dest": "torch/hub/many", "unpack": True}
            self.begin(self.manifest([entry]), env=self.slow("open=0.03", FVP_SLOW_PATH="member"))
            self.until("the first members", self.mark.exists)

        self.check("unpacking", begin)

    def test_hashing_a_hit(self):
        def begin():
            file = self.sparse()
            self.begin(self.manifest([{**self.url[0], "sha256": "0" * 64}]))
            self.until("the file to be read", lambda: self.has_open(file))

        self.check("hashing a hit", begin)

    def sparse(self):
        """Takes minutes to hash, and no space."""
        file = self.eval_cache / "models/a.pth"
        file.parent.mkdir(parents=True)
        with open(file, "wb") as out:
            out.truncate(200 << 30)
        return file

    def has_open(self, file):
        folder = Path(f"/proc/{self.pid_in(self.codes, 0)}/fd")
        try:
            return any(os.path.realpath(fd) == str(file.resolve()) for fd in folder.iterdir())
        except OSError:
            return False

    def test_fsync(self):
        def begin():
            self.begin(self.manifest(self.url), env=self.slow("fsync=60"))
            self.until("fsync", self.mark.exists)

        self.check("fsync", begin)

    def test_visibility(self):
        def begin():
            # Rank 1 sees an old state of this one folder, as with a file system that caches names.
            now = self.hf_cache / "models--org--model/snapshots"
            old = self.dir / "old"
            now.mkdir(parents=True)
            old.mkdir()
            self.begin(self.manifest(self.repository), "--visible-timeout", "5m",
                       before=["unshare", "-m", "bash", "-c", SEES_OLD, "bash", old, now])
            self.until("the snapshot", lambda: any((p / "config.json").is_symlink() for p in now.iterdir()))

        self.check("waiting for visibility", begin)

    def check_staging(self, phase, calls, path):
        def begin():
            large = self.hub.put("files/large.bin", os.urandom(20_000_000))
            manifest = self.manifest([{"name": "large", "source": self.hub.file_url("large.bin")}])
            self.assert_ok(self.fvp(manifest))
            self.assertEqual((self.eval_cache / "models/large").stat().st_size, len(large))
            stage = self.dir / "own-disk"
            self.begin(manifest, "--stage", stage, env=self.slow(calls, FVP_SLOW_PATH=path))
            self.until(f"the first {calls}", self.mark.exists)

        self.check(phase, begin)

    def test_staging_lock(self):
        self.check_staging("staging, its lock", "write=40", "own-disk/eval/.fvprefetch")

    def test_staging_copy(self):
        self.check_staging("staging, a node's disk", "write=40", "own-disk/eval/models")

    def test_staging_source(self):
        self.check_staging("staging, the shared file", "read=40", "models/large")


def tar_of(members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for number in range(members):
            info = tarfile.TarInfo(f"member{number:04d}")
            info.size = 100
            archive.addfile(info, io.BytesIO(b"m" * 100))
    return data.getvalue()


if __name__ == "__main__":
    harness.main()
