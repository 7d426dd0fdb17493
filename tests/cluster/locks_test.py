#!/usr/bin/env python3
"""The locks on real cluster file systems: several nodes, one cache, one download, whoever dies meanwhile.

    python3 tests/cluster/locks_test.py --flavour nfs|gluster --build-dir build --venv VENV [unittest arguments]

Needs what cluster_test.py needs, and in VENV the package filelock. FVPREFETCH_TEST_LOCK_ROUNDS is how often two nodes
race for each kind of lock (3; `./tests/run soak`: 100).

Nothing here depends on who is how fast: the server of the files is in this process and sends of each file what the case
has allowed so far, so that a holder is in the middle of its download for as long as the case needs it there.
"""

import collections
import dataclasses
import errno
import hashlib
import http.server
import json
import os
import pathlib
import random
import re
import shlex
import socketserver
import subprocess
import threading
import time
import unittest

import on_cluster
from on_cluster import BIN, FVPREFETCH, HEAD_ADDRESS, HERE, SHARED, Running, run

ROUNDS = int(os.environ.get("FVPREFETCH_TEST_LOCK_ROUNDS") or 3)
NODES = {"nfs": 2, "gluster": 4}
PER_NODE = 16  # of a job array
PATIENCE = 60  # seconds; only ends a wait for what never comes
KIB, MIB = 1 << 10, 1 << 20
ONE, TWO = "fvnode1", "fvnode2"
EVERYTHING = 1 << 60


def is_nfs():
    return on_cluster.OPTIONS.flavour == "nfs"


def eventually(what, check):
    deadline = time.monotonic() + PATIENCE
    while not (found := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {PATIENCE} s: not {what}")
        time.sleep(0.05)
    return found



def content_of(path):
    """A GlusterFS client may hold on to a file that was replaced meanwhile, for a moment."""
    for _ in range(50):
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        time.sleep(0.1)
    return path.read_bytes()


# --- the server of the files, and of what the processes say --------------------------------------------------


@dataclasses.dataclass
class Answer:
    node: str
    first: int  # offset in the file
    size: int = 0  # sent so far


class Origin:
    """An HTTP server on the head. Of each file it sends what is allowed so far, and then waits."""

    def __init__(self):
        self.files = {}
        self.paces = {}
        self.allowed = {}  # (file, node) or (file, None), which is for all other nodes: so many bytes
        self.answers = collections.defaultdict(list)
        self.change = threading.Condition()
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_HEAD(self):
                self.begin()

            def do_GET(self):
                name, first, end = self.begin()
                try:
                    origin.send(name, first, end, self)
                except OSError:  # killed, or it has all that it wants
                    self.close_connection = True

            def begin(self):
                name = self.path.lstrip("/")
                content = origin.files[name]
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                first, end = (int(asked[1]), int(asked[2] or len(content) - 1) + 1) if asked else (0, len(content))
                self.send_response(206 if asked else 200)
                if asked:
                    self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(content)}")
                self.send_header("Content-Length", str(end - first))
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("ETag", f'"{sha256(content)}"')
                self.end_headers()
                return name, first, end

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server((HEAD_ADDRESS, 0), Handler)
        self.url = f"http://{HEAD_ADDRESS}:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def send(self, name, first, end, handler):
        node = f"fvnode{int(handler.client_address[0].rpartition('.')[2]) - 100}"
        answer = Answer(node, first)
        self.answers[name].append(answer)
        time.sleep(self.paces[name])
        while (at := first + answer.size) < end:
            with self.change:
                self.change.wait_for(lambda at=at: self.limit(name, node) > at)
            until = min(at + 64 * KIB, end, self.limit(name, node))
            handler.wfile.write(self.files[name][at:until])
            answer.size = until - first

    def put(self, name, size, allowed=EVERYTHING, pace=0):
        """A new file. pace: seconds that every answer takes at least."""
        self.files[name] = random.Random(name).randbytes(size)
        self.allowed[name, None] = allowed
        self.paces[name] = pace

    def allow(self, name, up_to=EVERYTHING, node=None):
        with self.change:
            self.allowed[name, node] = up_to
            self.change.notify_all()

    def limit(self, name, node):
        return self.allowed.get((name, node), self.allowed[name, None])

    def bytes_sent(self, name):
        return sum(answer.size for answer in self.answers[name])


class Ears:
    """A TCP server on the head for the stderr of many processes, as it is said: what a batch script writes to a file
    on NFS is seen elsewhere when the file is closed. The first line is a name."""

    def __init__(self):
        self.said = {}
        ears = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                name = self.rfile.readline().decode().strip()
                ears.said[name] = ""
                for line in self.rfile:
                    ears.said[name] += line.decode()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server((HEAD_ADDRESS, 0), Handler)
        self.path = f"/dev/tcp/{HEAD_ADDRESS}/{self.server.server_address[1]}"  # as bash has it
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


# --- what a case is made of --------------------------------------------------


ORIGIN = None  # set by setUpModule


def setUpModule():
    global ORIGIN
    build = on_cluster.OPTIONS.build_dir
    on_cluster.copy_to_nodes(build / "fvprefetch", build / "fvprefetch-mpi.so", build / "tests/contract/contract_lock",
                             *(build / "tests/shims").glob("*.so"), HERE / "fastvideo_download.py")
    ORIGIN = Origin()


def srun(node, *command):
    return ["srun", "--mpi=none", "--nodes=1", "--ntasks=1", f"--nodelist={node}", *command]


class Task(Running):
    """A command on a node, by its own srun: `self.pid` is the command's, there."""

    def __init__(self, node, command, environment, pid_file):
        self.node = node
        self.pid_file = pid_file
        note = f'echo $$ > {pid_file}.new && mv {pid_file}.new {pid_file} && exec "$@"'
        super().__init__(srun(node, "bash", "-c", note, "bash", *command), environment)

    @property
    def pid(self):
        return int(eventually(f"{self.command} started: {self}", lambda: self.pid_file.exists()
                              and self.pid_file.read_text()))

    def signal(self, name):
        done = run(srun(self.node, "kill", f"-{name}", self.pid))
        assert done.code == 0, str(done)

    def end(self):
        """Kills it, and waits until it is gone."""
        self.signal("KILL")
        return self.wait()

    def wait_to_say(self, text):
        eventually(f"{text!r} by {self.command}", lambda: text in self.err)

    def __str__(self):
        return f"--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Download:
    """One file of the origin, and the one cache that all nodes share, fresh."""

    def __init__(self, case, name="w", size=400 * KIB, **of_origin):
        self.case = case
        self.folder = SHARED / f"{case.id().partition('.')[2]}.{name}"
        self.folder.mkdir()
        self.name = f"{self.folder.name}.pth"
        self.size = size
        ORIGIN.put(self.name, size, **of_origin)
        self.url = f"{ORIGIN.url}/{self.name}"
        self.manifest = self.folder / "manifest.json"
        self.manifest.write_text(json.dumps({"version": 1, "entries": [{"name": "w", "source": self.url}]}))
        self.cache = self.folder / "eval"
        self.file = self.cache / "models/w"
        self.locks = self.cache / ".fvprefetch/locks"
        self.lease = self.locks / f"{sha256(b'models/w')}.lease"
        self.tasks = 0

    def environment(self, cache=None, **more):
        return {"FASTVIDEO_EVAL_CACHE": cache or self.cache, "HF_HUB_CACHE": self.folder / "hub"} | more

    def start(self, node, *command, **environment):
        self.tasks += 1
        task = Task(node, command, self.environment(**environment), self.folder / f"pid.{self.tasks}")
        self.case.addCleanup(task.kill)
        return task

    def fetch(self, node, *options, before=(), **environment):
        """fvprefetch; `before`: words before it, as of setpriv."""
        return self.start(node, *before, FVPREFETCH, self.manifest, *options, **environment)

    def allow(self, up_to=EVERYTHING, node=None):
        ORIGIN.allow(self.name, up_to, node)

    def wait_until_sent(self, up_to, task):
        eventually(f"{up_to} bytes of {self.name} sent to {task.node}: {task}", lambda: any(
            answer.node == task.node and answer.first + answer.size >= up_to for answer in ORIGIN.answers[self.name]))

    def wait_until_written(self, up_to, task):
        """And the lease says so."""
        def written():
            try:
                return json.loads(self.lease.read_text())["bytes_done"] >= up_to
            except (OSError, ValueError):
                return False
        eventually(f"{up_to} bytes of {self.name} written by {task.node}: {task}", written)

    def left(self):
        """What lies among the locks, other than lock files."""
        return sorted(file.name for file in self.locks.iterdir() if file.suffix not in (".lock", ".holder"))

    def unfinished(self):
        return sorted(file.name for file in self.file.parent.iterdir() if file.name.endswith("-part"))


class LockCase(unittest.TestCase):
    maxDiff = None
    longMessage = True

    def assert_exit(self, code, outcome):
        self.assertEqual(outcome.code, code, str(outcome))

    def assert_right(self, download):
        # Not by assertEqual, which would print the bytes.
        self.assertEqual(sha256(content_of(download.file)), sha256(ORIGIN.files[download.name]))
        self.assertEqual(download.left(), [])

    def assert_once(self, download):
        self.assert_right(download)
        self.assertEqual(ORIGIN.bytes_sent(download.name), download.size)

    def assert_finished(self, *tasks, timeout=on_cluster.STEP_TIMEOUT):
        for task in tasks:
            self.assert_exit(0, task.wait(timeout))

    def assert_waits_for(self, waiter, holder):
        waiter.wait_to_say(f"held by {holder.node} pid {holder.pid}")


# --- the cases --------------------------------------------------


class Contract(LockCase):
    def test_every_kind_of_lock_keeps_its_contract_on_this_file_system(self):
        folder = SHARED / "contract"
        folder.mkdir()
        # A FUSE client's locks are not in the kernel's list, by which that one names a holder.
        leave_out = "" if is_nfs() else "--gtest_filter=-Flock.HolderWithoutARecordIsFoundInTheKernelsList"
        done = run(srun(ONE, BIN / "contract_lock", "--gtest_brief=1", leave_out), {"TMPDIR": folder})
        self.assert_exit(0, done)
        self.assertIn("PASSED", done.out)


class Races(LockCase):
    """Again and again from nothing, two processes on two nodes."""

    def race(self, *options):
        downloads = [Download(self, str(i), pace=0.2) for i in range(ROUNDS)]
        fetch = f'for cache; do FASTVIDEO_EVAL_CACHE=$cache/eval {FVPREFETCH} $cache/manifest.json '
        fetch += f'{shlex.join(options)} || exit; done'
        tasks = [downloads[0].start(node, "bash", "-c", fetch, "bash", *(download.folder for download in downloads))
                 for node in (ONE, TWO)]
        self.assert_finished(*tasks, timeout=on_cluster.STEP_TIMEOUT + 5 * ROUNDS)
        for download in downloads:
            self.assert_once(download)

    def test_flock(self):
        self.race("--lock", "flock")

    def test_lease(self):
        self.race("--lock", "lease")

    def test_auto(self):
        self.race()


class JobArray(LockCase):
    """Processes that know nothing of each other, on every node."""

    def test_one_downloads_and_all_others_wait_and_say_on_whom(self):
        nodes = NODES[on_cluster.OPTIONS.flavour]
        tasks = nodes * PER_NODE
        download = Download(self, allowed=100 * KIB)
        ears = Ears()
        script = download.folder / "script"
        script.write_text(f"#!/bin/bash\nexec 2> {ears.path}\necho $SLURM_ARRAY_TASK_ID >&2\n"
                          f"exec {FVPREFETCH} {download.manifest}\n")
        begin = time.monotonic()
        submitted = run(["sbatch", "--parsable", "--cpus-per-task=1", f"--array=0-{tasks - 1}",
                         f"--output={download.folder}/output.%a.%N", script], download.environment())
        self.assert_exit(0, submitted)
        job = submitted.out.strip()
        self.addCleanup(run, ["scancel", job])

        def waiting():
            return [name for name, said in ears.said.items() if "waiting for" in said]

        eventually("all but one waiting", lambda: len(waiting()) == tasks - 1)
        download.allow()
        states = on_cluster.wait_for_job(job)
        minutes = (time.monotonic() - begin) // 60
        self.assertEqual(states, ["COMPLETED"] * tasks, str(ears.said))
        self.assert_once(download)
        for said in ears.said.values():
            lines = [line for line in said.splitlines() if "waiting for" in line]
            self.assertLessEqual(len(lines), 1 + minutes, said)
            for line in lines:
                self.assertRegex(line, r"held by (fvnode\d+ )?pid \d+")
        outputs = [file.name for file in download.folder.glob("output.*")]
        per_node = collections.Counter(name.rpartition(".")[2] for name in outputs)
        self.assertEqual(sorted(per_node.values()), [PER_NODE] * nodes)


class FastVideo(LockCase):
    """The original's fault: its lock lies in /tmp, which each node has for itself; its unfinished file in the cache."""

    def test_two_nodes_with_the_original_get_zeros_and_a_failure(self):
        half = MIB
        download = Download(self, size=2 * half, allowed=half)
        download.allow(0, node=TWO)
        unfinished = download.file.with_name("w.tmp")
        script = [on_cluster.python(), BIN / "fastvideo_download.py", download.url, download.file]

        def size_at_server(size):
            return unfinished.exists() and unfinished.stat().st_size == size

        first = download.start(ONE, *script)
        download.wait_until_sent(half, first)
        # The kernel of the node writes back when it likes; here it is told when.
        self.assert_exit(0, run(srun(ONE, "bash", "-c", f"until [ $(stat -c %s {unfinished}) = {half} ]; do sleep 0.1; "
                                                        f"done; sync -f {unfinished}")))
        eventually("half of the file at the server", lambda: size_at_server(half))
        second = download.start(TWO, *script)
        eventually(f"truncated by the second: {second}", lambda: size_at_server(0))
        download.allow(node=ONE)
        done = first.wait()
        self.assert_exit(0, done)
        self.assertEqual(done.out.strip(), str(download.file))  # it "has" the file
        content = download.file.read_bytes()
        self.assertEqual(content.count(0, 0, half), half, "the first half is no zeros")
        download.allow(node=TWO)
        done = second.wait()
        if is_nfs():
            self.assertNotEqual(done.code, 0)
            self.assertIn("FileNotFoundError", done.err)
        self.assertEqual(ORIGIN.bytes_sent(download.name), 2 * download.size)

    def test_fvprefetch_in_the_same_place_downloads_once_and_is_right(self):
        download = Download(self, size=2 * MIB, allowed=MIB)
        first = download.fetch(ONE)
        download.wait_until_sent(MIB, first)
        second = download.fetch(TWO)
        self.assert_waits_for(second, first)
        download.allow()
        self.assert_finished(first, second)
        self.assert_once(download)


class Deaths(LockCase):
    def test_a_killed_holder_is_followed(self):
        download = Download(self, size=8 * MIB, allowed=4 * MIB)
        holder = download.fetch(ONE, "--lease-timeout", "2s")
        download.wait_until_written(4 * MIB, holder)
        waiter = download.fetch(TWO, "--lease-timeout", "2s")
        self.assert_waits_for(waiter, holder)
        holder.end()
        download.allow()
        self.assert_finished(waiter)
        self.assert_right(download)

    def test_a_killed_waiter_troubles_nobody(self):
        download = Download(self, allowed=100 * KIB)
        holder = download.fetch(ONE)
        download.wait_until_sent(100 * KIB, holder)
        waiters = [download.fetch(TWO) for _ in range(2)]
        for waiter in waiters:
            waiter.wait_to_say("waiting for")
        waiters[0].end()
        download.allow()
        self.assert_finished(holder, waiters[1])
        self.assert_once(download)

    def test_a_suspended_holder_is_overtaken_notices_and_does_no_harm(self):
        options = ["--lock", "lease", "--lease-timeout", "2s"]
        download = Download(self, size=4 * MIB, allowed=2 * MIB)
        holder = download.fetch(ONE, *options)
        download.wait_until_written(2 * MIB, holder)
        holder.signal("STOP")
        waiter = download.fetch(TWO, *options)
        download.allow(node=TWO)
        self.assert_finished(waiter)
        published = download.file.stat().st_ino
        download.allow()
        holder.signal("CONT")
        done = holder.wait()
        self.assert_exit(0, done)
        self.assert_right(download)
        self.assertIn("taken over the lock", done.err)
        self.assertEqual(download.file.stat().st_ino, published)

    def test_a_suspended_holder_whose_flock_is_true_is_waited_for(self):
        download = Download(self, allowed=100 * KIB)
        holder = download.fetch(ONE, "--lease-timeout", "2s")
        download.wait_until_sent(100 * KIB, holder)
        holder.signal("STOP")
        waiter = download.fetch(TWO, "--lease-timeout", "2s")
        waiter.wait_to_say("waiting for")
        download.allow()
        holder.signal("CONT")
        self.assert_finished(holder, waiter)
        self.assert_once(download)


class Clocks(LockCase):
    def test_a_node_whose_clock_is_an_hour_off_takes_over_nothing_and_loses_nothing(self):
        if not is_nfs():
            self.skipTest("one kernel, one clock")
        # Right again before the step ends: Slurm's credentials are good for two minutes.
        turned = ["bash", "-c", 'date -s "@$(($(date +%s) + 3600))"; "$@"; status=$?; '
                  'date -s "@$(($(date +%s) - 3600))"; exit $status', "bash"]
        for name, first, second in [("waiter", (), turned), ("holder", turned, ())]:
            with self.subTest(f"the {name}'s clock"):
                options = ["--lock", "lease", "--lease-timeout", "4s"]
                download = Download(self, name, allowed=100 * KIB)
                holder = download.fetch(ONE, *options, before=first)
                download.wait_until_sent(100 * KIB, holder)
                waiter = download.fetch(TWO, *options, before=second)
                waiter.wait_to_say("waiting for")
                time.sleep(5)  # it may be longer: what is not taken over by then is not for the time's sake
                download.allow()
                self.assert_finished(holder, waiter)
                self.assert_once(download)


class Rights(LockCase):
    def snapshot(self, folder):
        return {file: (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                for file in sorted(folder.rglob("*")) for status in [file.lstat()]}

    def test_a_complete_cache_is_used_without_a_lock_and_without_writing(self):
        download = Download(self)
        self.assert_finished(download.fetch(ONE))
        for lock in download.locks.iterdir():
            lock.unlink()
        before = self.snapshot(download.cache)
        # No flock returns on this node.
        shim = {"LD_PRELOAD": BIN / "libhanging_flock.so"}
        read_only = ["bash", "-c", f"mount --bind {download.cache} /mnt && mount -o remount,bind,ro /mnt && "
                     '"$@"; status=$?; umount /mnt; exit $status', "bash", "env", f"LD_PRELOAD={shim['LD_PRELOAD']}"]
        done = [download.fetch(TWO, before=["env", f"LD_PRELOAD={shim['LD_PRELOAD']}"]).wait(),
                download.fetch(TWO, before=read_only, cache="/mnt").wait()]
        for outcome in done:
            self.assert_exit(0, outcome)
            self.assertNotIn("lock", outcome.err)
        self.assertEqual(self.snapshot(download.cache), before)
        self.assertEqual(ORIGIN.bytes_sent(download.name), download.size)

    def test_a_second_user_of_a_group_cache_follows_the_first(self):
        group = 3000
        download = Download(self, size=4 * MIB, allowed=2 * MIB)
        os.chown(download.folder, 0, group)
        download.folder.chmod(0o2775)

        def as_user(user):
            return ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={group}", "env", "HOME=/tmp",
                    "bash", "-c", 'umask 022; "$@"', "bash"]

        def of_user(node, user):
            return download.fetch(node, "--lease-timeout", "2s", before=as_user(user))

        first = of_user(ONE, 3001)
        download.wait_until_written(2 * MIB, first)
        second = of_user(TWO, 3002)
        second.wait_to_say("waiting for")
        holder = json.loads(download.lease.read_text())["pid"]
        self.assert_exit(0, run(srun(ONE, "kill", "-KILL", holder)))
        first.wait()
        download.allow()
        self.assert_finished(second)
        self.assert_right(download)


class OneNodeDiffers(LockCase):
    """Locks that work on one of two nodes only."""

    def test_locks_that_lie_hang_or_are_refused_on_one_node_still_make_one_download(self):
        shims = {"lying": {}, "hanging": {}, "failing": {"FVP_SHIM_ERRNO": "37"}}
        pairs = []
        for name, more in shims.items():
            # Through env: the srun on the head is not to have it.
            shim = ["env", f"LD_PRELOAD={BIN}/lib{name}_flock.so", *(f"{key}={value}" for key, value in more.items())]
            for which, first, second in [("holder", shim, ()), ("waiter", (), shim)]:
                download = Download(self, f"{name}.{which}", allowed=100 * KIB)
                pairs.append((download, download.fetch(ONE, before=first), second))
        for download, holder, _ in pairs:
            download.wait_until_sent(100 * KIB, holder)
        waiters = [download.fetch(TWO, before=second) for download, _, second in pairs]
        for waiter in waiters:
            waiter.wait_to_say("waiting for")
        for (download, holder, _), waiter in zip(pairs, waiters, strict=True):
            with self.subTest(download.name):
                download.allow()
                self.assert_finished(holder, waiter)
                self.assert_once(download)


class DeadNode(LockCase):
    """The last one: the node does not come back."""

    def test_when_a_node_dies_the_other_goes_on(self):
        if not is_nfs():
            self.skipTest("the nodes are one kernel")
        pairs = []
        for lock in ("lease", "auto"):
            options = ["--lock", lock, "--lease-timeout", "2s"]
            download = Download(self, lock, size=4 * MIB, allowed=2 * MIB)
            holder = download.fetch(TWO, *options)
            download.wait_until_written(2 * MIB, holder)
            waiter = download.fetch(ONE, *options)
            self.assert_waits_for(waiter, holder)
            pairs.append((lock, download, waiter))
        subprocess.run(["pkill", "-KILL", "-f", "fvid=2( |$)"], check=True)
        died = time.monotonic()
        for lock, download, waiter in pairs:
            with self.subTest(lock):
                download.allow()
                self.assert_finished(waiter)
                print(f"{lock}: done {time.monotonic() - died:.1f} s after the node's death", flush=True)
                self.assert_right(download)


def load_tests(loader, tests, pattern):
    cases = [Contract, Races, JobArray, FastVideo, Deaths, Clocks, Rights, OneNodeDiffers, DeadNode]
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)


if __name__ == "__main__":
    on_cluster.main(__file__, name="locks", description=__doc__, nodes=NODES,
                    programs=["fvprefetch", "fvprefetch-mpi.so", "tests/contract/contract_lock",
                              "tests/shims/liblying_flock.so"], modules=["filelock"],
                    settings={"FVC_CPUS": str(PER_NODE), "FVC_NFS_LEASE": "10"})
