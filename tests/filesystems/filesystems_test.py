"""Fetch, kill, resume, two at once, warm, verify and doctor on one file system after the other.

Each test mounts a file system that Debian packages, with the caches below its mount point, in a mount
namespace of its own (run with `unshare --mount`). What is asserted is the same everywhere: the bytes,
how often each was sent, no warning, nothing left of the locks, and that the lease has the form on disk
that `doctor` names. A test prints one row; tests/run shows them together.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402

MIB = 1 << 20
IMAGE_BYTES = 400 * MIB  # sparse; the least that mkfs.xfs takes is 300 MiB
PASSWORD = "secret"
# What the kernel or this machine may lack: said so in the table, and no reason to fail.
KERNEL_MAY_LACK = ("ext4", "ext2", "xfs", "btrfs", "overlayfs")


def package_version(package):
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


class NotHere(Exception):
    """The kernel or the machine does not have it."""


class FileSystems(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.mount_point = self.dir / "mnt"
        self.mount_point.mkdir()
        self.base = self.dir / "base"
        self.base.mkdir()
        self.weights = self.hub.put("models/acme/tiny/sub/w.bin", random.Random(1).randbytes(MIB))
        self.hub.put("models/acme/tiny/config.json", b'{"a": 1}')
        self.file = self.hub.put("files/a.pth", random.Random(2).randbytes(6 * MIB))
        self.site = len(self.weights) + len(b'{"a": 1}') + len(self.file)
        self.slow = {"path": "/files/*", "kind": "throttle", "bytes_per_second": 2 * MIB}
        url = {"name": "a", "source": self.hub.file_url("a.pth"), "sha256": harness.sha256(self.file)}
        # A branch costs requests to find out what it leads to; a commit costs none when all is there.
        plan = self.fvp("plan", self.manifest([{"name": "m", "source": "acme/tiny"}]), "--json")
        commit = json.loads(plan.stdout)["entries"][0]["commit"]
        self.path = self.manifest([url, {"name": "m", "source": "acme/tiny", "revision": commit}])
        self.url_path = self.manifest([url], "url.json")
        self.hub.reset()

    # --- mounting --------------------------------------------------------------------------------

    def run_tool(self, *argv, **kwargs):
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=harness.PATIENCE, **kwargs)
        if done.returncode != 0:
            raise AssertionError(f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def unmount_at_the_end(self, where):
        self.addCleanup(subprocess.run, ["umount", "--lazy", where], check=False)

    def daemon(self, *argv, stdin=subprocess.DEVNULL):
        """A FUSE file system that stays in the foreground; returns when it is mounted."""
        log = open(self.dir / "daemon.log", "w+b")
        self.addCleanup(log.close)
        process = subprocess.Popen([str(a) for a in argv], stdin=stdin, stdout=log, stderr=log)

        def end():
            try:
                process.wait(10)  # it has been unmounted
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self.addCleanup(end)
        self.unmount_at_the_end(self.mount_point)
        if stdin == subprocess.PIPE:
            process.stdin.write(PASSWORD.encode() + b"\n")
            process.stdin.close()
        end_of_patience = time.monotonic() + harness.PATIENCE
        while not os.path.ismount(self.mount_point):
            if process.poll() is not None or time.monotonic() > end_of_patience:
                raise AssertionError(f"{argv[0]} did not mount:\n{(self.dir / 'daemon.log').read_text()}")
            time.sleep(0.01)

    def image(self, *mkfs):
        image = self.dir / "image"
        with open(image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        self.run_tool(*mkfs, image)
        return image

    def loop_mount(self, kind, image, *options):
        if not os.path.exists("/dev/loop-control"):
            raise NotHere("no loop devices")
        done = subprocess.run(["mount", "-t", kind, "-o", ",".join(("loop", *options)), image, self.mount_point],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise NotHere(done.stderr.strip().splitlines()[0])
        self.unmount_at_the_end(self.mount_point)

    # --- what is asserted everywhere -------------------------------------------------------------

    def use(self, folder):
        self.eval_cache, self.hf_cache = folder / "eval", folder / "hf"
        self.env.update(HF_HUB_CACHE=str(self.hf_cache), FASTVIDEO_EVAL_CACHE=str(self.eval_cache))

    def leases(self, folder):
        """Of a directory that is not there any more when it is looked into, nothing."""
        found = []
        for where, directories, files in os.walk(folder):
            found += [Path(where) / name for name in directories + files if re.search(r"\.lease", name)]
        return found

    def assert_whole(self, stdout):
        paths = self.paths(stdout)
        self.assertEqual(Path(paths["a"]).read_bytes(), self.file)
        self.assertEqual((Path(paths["m"]) / "sub/w.bin").read_bytes(), self.weights)

    def assert_quiet(self, done, folder):
        self.assert_ok(done)
        self.assertNotIn("warning", done.stderr)
        self.assertEqual(self.leases(folder), [])

    def fetch_cold(self, folder):
        """One process, alone. What locks it took."""
        self.use(folder)
        done = self.fvp(self.path, "--json")
        self.assert_quiet(done, folder)
        report = json.loads(done.stdout)
        self.assertEqual([entry["state"] for entry in report["entries"]], ["fetched", "fetched"])
        self.assertEqual(self.hub.stats()["body_bytes"], self.site)
        return report["lock"]["kind"]

    def kill_and_resume(self, folder):
        """The form of the lease that the killed one held."""
        self.use(folder)
        self.hub.reset()
        self.hub.faults(self.slow)
        process = self.start(self.url_path, "--connections", 1)

        self.wait_for("a block that the journal tells of",
                      lambda: process.poll() is not None or any(self.eval_cache.rglob("partials/*.json")))
        held = [p for p in self.leases(folder) if p.suffix == ".lease"]
        form = ["mkdir" if p.is_dir() else "link" for p in held] or ["none"]
        process.kill()
        _, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, -signal.SIGKILL, err)
        self.hub.no_faults()
        done = self.fvp(self.url_path, "--json")
        self.assert_quiet(done, folder)
        (entry,) = json.loads(done.stdout)["entries"]
        self.assertEqual(entry["state"], "resumed")
        self.assertLess(entry["bytes_fetched"], len(self.file))
        self.assertEqual(Path(entry["path"]).read_bytes(), self.file)
        self.assertEqual(self.unfinished(), [])
        self.assertEqual(len(form), 1, held)
        return form[0]

    def two_at_once(self, folder):
        self.use(folder)
        self.hub.reset()
        self.hub.faults(self.slow)
        both = [self.start(self.path) for _ in range(2)]
        for process in both:
            out, err = process.communicate(timeout=harness.PATIENCE)
            self.assertEqual(process.returncode, 0, err)
            self.assertNotIn("warning", err)
            self.assert_whole(out)
        self.hub.no_faults()
        self.assertEqual(self.hub.stats()["body_bytes"], self.site)
        self.assertEqual(self.leases(folder), [])

    def look_again(self):
        self.hub.reset()
        done = self.fvp(self.path)
        self.assert_ok(done)
        self.assert_whole(done.stdout)
        self.assertEqual(self.hub.stats()["requests"], 0)
        done = self.fvp("verify", self.path)
        self.assert_ok(done)

    def doctor(self):
        done = self.fvp("doctor", "--json")
        self.assert_ok(done)
        (locks,) = (each for each in json.loads(done.stdout)["locks"] if each["role"] == "eval cache")
        return locks["auto_relies_on"]

    def row(self, name, version, text):
        line = f"{name:22} {version:24} {text}"
        print(line, flush=True)
        with open(self.rows(), "a") as out:
            out.write(f"filesystems: {line}\n")

    def rows(self):
        folder = harness.BUILD / "tests/filesystems"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "table.txt"

    def check(self, name, version, mount):
        begin = time.monotonic()
        try:
            mount()
        except NotHere as why:
            self.assertIn(name.split()[0], KERNEL_MAY_LACK)
            self.row(name, version, f"NOT RUN: {why}")
            return
        kind = self.fetch_cold(self.mount_point / "cold")
        form = self.kill_and_resume(self.mount_point / "killed")
        self.two_at_once(self.mount_point / "two")
        self.look_again()
        relied_on = self.doctor()
        expected = {
            "flock+lease": f"flock, and a lease made by {form} inside it",
            "flock": "flock",
            "lease": f"a lease made by {form} alone",
        }[kind]
        self.assertEqual(relied_on, expected, "doctor says what the fetch does not do")
        self.row(name, version, f"{kind} ({form}): fetch, kill, resume, two at once, warm, verify, doctor ok"
                                f" in {time.monotonic() - begin:.1f} s")

    def kernel(self, name, *mkfs, options=()):
        version = os.uname().release
        self.check(name, "Linux " + version, lambda: self.loop_mount(name, self.image(*mkfs), *options))

    def fuse(self, name, package, mount):
        self.check(name, f"{package} {package_version(package)}".removeprefix(name + " "), mount)

    # --- the kernel's ----------------------------------------------------------------------------

    def test_ext4(self):
        self.kernel("ext4", "mkfs.ext4", "-q")

    def test_ext2(self):
        self.kernel("ext2", "mkfs.ext2", "-q")

    def test_xfs(self):
        self.kernel("xfs", "mkfs.xfs", "-q")

    def test_btrfs(self):
        self.kernel("btrfs", "mkfs.btrfs", "-q")

    def test_tmpfs(self):
        def mount():
            self.run_tool("mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", self.mount_point)
            self.unmount_at_the_end(self.mount_point)

        self.check("tmpfs", "Linux " + os.uname().release, mount)

    def layers(self):
        """An overlay must not lie on an overlay, and this machine's disk may be one."""
        self.run_tool("mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", self.base)
        self.unmount_at_the_end(self.base)
        for name in ("lower", "upper", "work"):
            (self.base / name).mkdir()
        return f"lowerdir={self.base}/lower,upperdir={self.base}/upper,workdir={self.base}/work"

    def test_overlayfs(self):
        def mount():
            layers = self.layers()
            done = subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", self.mount_point],
                                  capture_output=True, text=True)
            if done.returncode != 0:
                raise NotHere(done.stderr.strip())
            self.unmount_at_the_end(self.mount_point)

        self.check("overlayfs", "Linux " + os.uname().release, mount)

    # --- in user space ---------------------------------------------------------------------------

    def branches(self):
        for name in ("one", "two"):
            (self.base / name).mkdir()
        return self.base / "one", self.base / "two"

    def test_mergerfs(self):
        one, two = self.branches()
        self.fuse("mergerfs", "mergerfs", lambda: self.daemon("mergerfs", "-f", f"{one}:{two}", self.mount_point))

    def test_mergerfs_use_ino(self):
        one, two = self.branches()
        self.fuse("mergerfs use_ino", "mergerfs",
                  lambda: self.daemon("mergerfs", "-f", "-o", "use_ino", f"{one}:{two}", self.mount_point))

    def test_unionfs_fuse(self):
        one, two = self.branches()
        self.fuse("unionfs-fuse", "unionfs-fuse",
                  lambda: self.daemon("unionfs", "-f", "-o", "cow", f"{one}=RW:{two}=RO", self.mount_point))

    def test_mhddfs(self):
        one, two = self.branches()
        self.fuse("mhddfs", "mhddfs", lambda: self.daemon("mhddfs", "-f", f"{one},{two}", self.mount_point))

    def test_bindfs(self):
        self.fuse("bindfs", "bindfs", lambda: self.daemon("bindfs", "-f", self.base, self.mount_point))

    def sshfs(self, *options):
        """With the server's end of it and no ssh between: sftp over a pair of pipes is what it speaks."""
        there, here = os.pipe(), os.pipe()
        server = subprocess.Popen(["/usr/lib/openssh/sftp-server"], stdin=there[0], stdout=here[1])
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        for end in (there[0], here[1]):
            os.close(end)
        log = open(self.dir / "daemon.log", "w+b")
        self.addCleanup(log.close)
        client = subprocess.Popen(
            ["sshfs", "-f", "-o", ",".join(("passive", *options)), f"there:{self.base}", self.mount_point],
            stdin=here[0], stdout=there[1], stderr=log)
        for end in (here[0], there[1]):
            os.close(end)
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)
        self.unmount_at_the_end(self.mount_point)
        self.wait_for("sshfs", lambda: os.path.ismount(self.mount_point) or client.poll() is not None)
        self.assertIsNone(client.poll(), (self.dir / "daemon.log").read_text())

    def test_sshfs(self):
        # Without this option no link with ".." in it can be read, which all in a Hub cache have.
        self.fuse("sshfs links", "sshfs", lambda: self.sshfs("no_contain_symlinks"))

    def test_sshfs_plain_links(self):
        """As it is by default, a Hub cache cannot be read; URL entries can."""
        self.sshfs()
        self.use(self.mount_point / "cold")
        done = self.fvp(self.url_path)
        self.assert_quiet(done, self.mount_point)
        done = self.fvp(self.path, "--visible-timeout", "1s")
        self.assertIn(done.returncode, (10, 14), done.stderr)
        self.row("sshfs", f"{package_version('sshfs')}",
                 f"URL entries ok; a Hub cache cannot be read (exit {done.returncode}): -o no_contain_symlinks")

    def test_encfs(self):
        self.fuse("encfs", "encfs", lambda: self.daemon(
            "encfs", "-f", "--standard", "--stdinpass", self.base, self.mount_point, stdin=subprocess.PIPE))

    def test_securefs(self):
        def mount():
            self.run_tool("securefs", "create", "--pass", PASSWORD, self.base)
            self.daemon("securefs", "mount", "--pass", PASSWORD, self.base, self.mount_point)

        self.fuse("securefs", "securefs", mount)

    def test_cryfs(self):
        self.env_of_tools = {"CRYFS_FRONTEND": "noninteractive", "CRYFS_NO_UPDATE_CHECK": "true"}
        os.environ.update(self.env_of_tools, HOME=str(self.dir / "home"))
        self.fuse("cryfs", "cryfs",
                  lambda: self.daemon("cryfs", "-f", self.base, self.mount_point, stdin=subprocess.PIPE))

    def test_gocryptfs(self):
        def mount():
            self.run_tool("gocryptfs", "-q", "-init", "-scryptn", "10", "-extpass", "echo " + PASSWORD, self.base)
            self.daemon("gocryptfs", "-q", "-fg", "-extpass", "echo " + PASSWORD, self.base, self.mount_point)

        self.fuse("gocryptfs", "gocryptfs", mount)

    def test_fuse_overlayfs(self):
        self.fuse("fuse-overlayfs", "fuse-overlayfs",
                  lambda: self.daemon("fuse-overlayfs", "-f", "-o", self.layers(), self.mount_point))

    def test_fuse2fs(self):
        self.fuse("fuse2fs", "fuse2fs", lambda: self.daemon(
            "fuse2fs", "-f", "-o", "fakeroot,rw", self.image("mkfs.ext4", "-q"), self.mount_point))

    def test_ntfs_3g(self):
        self.fuse("ntfs-3g", "ntfs-3g", lambda: self.daemon(
            "ntfs-3g", "-o", "no_detach", self.image("mkfs.ntfs", "-F", "-Q", "-q"), self.mount_point))

    def test_rclone(self):
        # A file that is open for reading and writing at once needs its cache.
        self.fuse("rclone", "rclone", lambda: self.daemon(
            "rclone", "mount", "--config", "/dev/null", "--vfs-cache-mode", "full", "--cache-dir", self.dir / "rclone",
            f":local:{self.base}", self.mount_point))


if __name__ == "__main__":
    harness.main()
