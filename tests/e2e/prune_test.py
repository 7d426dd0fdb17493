"""`fvprefetch prune`: what killed runs of ours left a day ago goes, and nothing else does.

Time is not waited for: os.utime sets it back.
"""

import fcntl
import hashlib
import json
import os
import random
import socket
import subprocess
import time

import harness

MIB = 1 << 20
DAY = 24 * 3600
OLD = DAY + 60
TAG = "00c0ffee"
BLOB = "ab" * 32


def set_back(path, seconds=OLD):
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)


class Prune(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.repo = self.hf_cache / "models--org--model"
        self.hf_locks = self.hf_cache / ".locks/models--org--model"
        self.state = self.eval_cache / ".fvprefetch"

    # --- what lies there -------------------------------------------------------------------------

    def lay(self, path, data=b"half a file", age=OLD):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if age:
            set_back(path, age)
        return path

    def key(self, relative):
        return hashlib.sha256(relative.encode()).hexdigest()

    def url_partial(self, relative="models/w.pth", tag=TAG, age=OLD):
        folder, name = relative.rsplit("/", 1)
        return self.lay(self.eval_cache / folder / f".{name}.{tag}.fvprefetch-part", age=age)

    def blob_partial(self, blob=BLOB, tag=TAG, age=OLD):
        return self.lay(self.repo / f"blobs/{blob}.{tag}.fvprefetch-part", age=age)

    def journal(self, path, owner=None, age=OLD):
        told = {"version": 1, "size": 100, "digest": "sha256:" + BLOB, "address": "", "etag": "", "total": 100,
                "done": [[0, 11]], "durable": [[0, 11]], "boot": "", "owner": owner}  # fmt: skip
        return self.lay(path, json.dumps(told).encode(), age)

    def url_journal(self, relative="models/w.pth", tag=TAG, owner=None, age=OLD):
        return self.journal(self.state / f"partials/{self.key(relative)}.{tag}.json", owner, age)

    def blob_journal(self, blob=BLOB, tag=TAG, owner=None, age=OLD):
        return self.journal(self.repo / f".fvprefetch/partials/{blob}.{tag}.json", owner, age)

    def this_process(self):
        start = harness.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        return {"host": socket.gethostname(), "pid": os.getpid(), "started": int(start),
                "boot": harness.Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
                "pid_namespace": os.readlink("/proc/self/ns/pid")}  # fmt: skip

    def there(self):
        return {p for root in (self.hf_cache, self.eval_cache) for p in root.rglob("*")}

    def files(self):
        return {p for p in self.there() if p.is_symlink() or not p.is_dir()}

    def prune(self, *args, code=0, **kwargs):
        """The paths that it printed."""
        done = self.fvp("prune", *args, **kwargs)
        self.assert_ok(done, code)
        self.said = done.stderr
        return {harness.Path(line) for line in done.stdout.splitlines()}

    def assert_removes(self, gone, *args):
        before = self.files()
        self.assertEqual(self.prune(*args), set(gone))
        self.assertEqual(before - self.files(), set(gone))
        self.assertEqual(self.files() - before, set())

    def assert_keeps_all(self, *args):
        self.assert_removes([], *args)

    def killed(self, size=2 * MIB):
        """Leaves what a killed download of models/killed.pth leaves; its manifest, and the files."""
        data = self.hub.put("files/killed.pth", random.Random(3).randbytes(8 * MIB))
        path = self.manifest(
            [{"name": "killed.pth", "source": self.hub.file_url("killed.pth"), "sha256": harness.sha256(data)}],
            "killed.json",
        )
        self.hub.faults({"path": "/files/killed.pth", "kind": "stall", "after_bytes": size})
        process = self.start(path)
        self.wait_for("a journal", lambda: list(self.eval_cache.rglob("partials/*.json")))
        process.kill()
        process.wait(harness.PATIENCE)
        self.hub.no_faults()
        return path, {*self.eval_cache.rglob("partials/*.json"), *self.unfinished()}

    # --- what goes -------------------------------------------------------------------------------

    def test_what_a_killed_run_left_goes_after_a_day_and_not_before(self):
        _, left = self.killed()
        self.assertEqual(len(left), 2)
        self.assert_keeps_all()
        self.assertIn("not a day old", self.said)
        for path in left:
            set_back(path, DAY - 600)
        self.assert_keeps_all()
        (journal,) = (p for p in left if p.suffix == ".json")
        (part,) = left - {journal}
        set_back(part)
        self.assert_keeps_all()  # the journal was written since
        set_back(journal)
        self.assertEqual(len(list(self.eval_cache.rglob("*.lock"))), 1)
        self.assert_removes(left)
        self.assertIn("removed 2 files, ", self.said)

    def test_every_private_name_of_ours_goes(self):
        long_name = "models/" + "n" * 250
        gone = [
            self.url_partial(),
            self.url_journal(),
            self.url_partial("torch/hub/checkpoints/deep/x.pth"),  # killed before its first journal
            self.url_journal("models/gone.pth"),  # its data is gone
            self.url_partial("models/" + self.key("n" * 250), tag="11111111"),  # its name is too long
            self.url_journal(long_name, tag="11111111"),
            self.lay(self.state / f"partials/{self.key('x')}.{TAG}.json.tmp"),
            self.lay(self.state / f"tmp/{TAG}"),
            self.lay(self.state / f"locks/{self.key('x')}.holder"),
            self.lay(self.state / f"locks/{self.key('x')}.holder.{TAG}"),
            self.blob_partial(),
            self.blob_journal(),
            self.blob_partial("cd" * 20),
            self.blob_journal("ef" * 20),
            self.lay(self.repo / f".fvprefetch/partials/{BLOB}.{TAG}.json.tmp"),
            self.lay(self.repo / f".fvprefetch/tmp/{TAG}"),
            self.repo / ".fvprefetch/tmp/11111111",
            self.lay(self.hf_locks / f"{BLOB}.holder"),
            self.lay(self.hf_locks / f"{BLOB}.holder.{TAG}"),
            self.lay(self.hf_cache / f"datasets--org--data/blobs/{BLOB}.{TAG}.fvprefetch-part"),
            self.lay(self.hf_locks / f".{TAG}.fvprefetch-new", b""),  # a lock file that was being made
            self.lay(self.state / f"locks/.{TAG}.fvprefetch-new", b""),
        ]
        os.symlink("../../blobs/x", gone[16])  # a pointer on its way
        set_back(gone[16])
        self.lay(self.hf_locks / f"{BLOB}.lock", b"")
        self.lay(self.state / f"locks/{self.key('models/w.pth')}.lock", b"")
        self.assert_removes(gone)
        self.assert_keeps_all()

    def test_a_folder_that_was_being_made_goes_wherever_that_was(self):
        above = [self.eval_cache, self.eval_cache / "torch/hub", self.state, self.hf_cache, self.hf_cache / ".locks",
                 self.hf_locks, self.repo, self.repo / "snapshots", self.repo / "refs", self.repo / ".fvprefetch"]  # fmt: skip
        for name, age in ((f".{TAG}.fvprefetch-new", OLD), (".11111111.fvprefetch-new", DAY - 60), ("a.fvprefetch-new", OLD)):
            for folder in above:
                (folder / name).mkdir(parents=True)
                set_back(folder / name, age)
        gone = {folder / f".{TAG}.fvprefetch-new" for folder in above}
        before = self.there()
        self.assertEqual(self.prune(), gone)
        self.assertEqual(before - self.there(), gone)

    def test_the_probes_of_a_killed_doctor_go_after_a_day(self):
        gone, kept = set(), set()
        for folder in (self.state, self.hf_cache / ".locks"):
            for name, age in ((f"doctor.{TAG}", OLD), ("doctor.11111111", DAY - 60), ("doctor.mine", OLD)):
                self.lay(folder / name / "link.0", b"")
                self.lay(folder / name / "afresh/name", b"")
                set_back(folder / name, age)
                (gone if name.endswith(TAG) else kept).add(folder / name)
        self.assertEqual(self.prune("--dry-run"), gone)
        self.assertEqual(self.prune(), gone)
        self.assertEqual({p for p in gone | kept if p.exists()}, kept)

    def test_the_owner_of_another_host_has_a_day_to_show_that_it_lives(self):
        far = {**self.this_process(), "boot": "another machine"}
        gone = [self.url_partial(), self.url_journal(owner=far)]
        self.url_partial("models/b.pth")
        self.url_journal("models/b.pth", owner=far, age=DAY - 60)
        self.blob_partial(age=DAY - 60)
        self.blob_journal(owner=far)
        self.assert_removes(gone)

    def test_torch_home_is_one_of_the_caches(self):
        torch = self.dir / "torch-home"
        part = self.lay(torch / f"hub/checkpoints/.a.pth.{TAG}.fvprefetch-part")
        journal = self.journal(torch / f".fvprefetch/partials/{self.key('hub/checkpoints/a.pth')}.{TAG}.json")
        self.assertEqual(self.prune(), set())
        self.assertEqual(self.prune(env={"TORCH_HOME": str(torch)}), {part, journal})
        # Also where it lies below the eval cache, which does not take its files for its own.
        torch = self.eval_cache / "torch"
        part = self.lay(torch / f"hub/.a.pth.{TAG}.fvprefetch-part")
        self.journal(torch / f".fvprefetch/partials/{self.key('hub/a.pth')}.{TAG}.json", self.this_process())
        self.assertEqual(self.prune(env={"TORCH_HOME": str(torch)}), set())
        self.assertTrue(part.exists())

    # --- what stays ------------------------------------------------------------------------------

    def test_what_a_living_process_owns_stays_whatever_its_age(self):
        self.url_partial(age=100 * DAY)
        self.url_journal(owner=self.this_process(), age=100 * DAY)
        self.blob_partial(age=100 * DAY)
        self.blob_journal(owner=self.this_process(), age=100 * DAY)
        self.url_partial("models/" + self.key("n" * 250), tag="11111111")
        self.url_journal("models/" + "n" * 250, tag="11111111", owner=self.this_process())
        self.assert_keeps_all()
        self.assertIn("in use", self.said)

    def test_what_lies_below_a_held_lock_stays(self):
        url = [self.url_partial(), self.url_journal(), self.lay(self.state / f"locks/{self.key('models/w.pth')}.holder")]
        blob = [self.blob_partial(), self.lay(self.hf_locks / f"{BLOB}.holder")]
        for lock in (self.state / f"locks/{self.key('models/w.pth')}.lock", self.hf_locks / f"{BLOB}.lock"):
            handle = self.lay(lock, b"").open("r+")
            self.addCleanup(handle.close)
            fcntl.flock(handle, fcntl.LOCK_EX)
        other = self.blob_partial("cd" * 20)
        self.assertEqual(self.prune("--dry-run"), {other})
        self.assert_removes([other])
        self.assertEqual(self.files() & {*url, *blob}, {*url, *blob})

    def test_where_locks_are_not_wanted_the_age_decides_and_records_of_holders_stay(self):
        gone = [self.url_partial(), self.url_journal()]
        lock = self.lay(self.state / f"locks/{self.key('models/w.pth')}.lock", b"")
        self.lay(lock.with_suffix(".holder"))
        with lock.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self.assert_keeps_all()
            self.assert_removes(gone, "--lock", "none")

    def test_what_is_not_ours_stays(self):
        for place in ("blobs", "refs", ".fvprefetch", ".fvprefetch/partials", ".fvprefetch/tmp"):
            for name in (f"{BLOB}.incomplete", f"{BLOB}.{TAG}.incomplete", f"{BLOB}.{TAG}.part", "notes.txt",
                         f"{BLOB}.fvprefetch-part", f"{BLOB}.00C0FFEE.fvprefetch-part", f"{BLOB}.{TAG}.fvprefetch-part.bak"):  # fmt: skip
                self.lay(self.repo / place / name, age=100 * DAY)
                self.lay(self.eval_cache / place / name, age=100 * DAY)
        self.lay(self.hf_cache / f".{BLOB}.{TAG}.fvprefetch-part")  # nothing of ours lies there
        self.lay(self.repo / f"snapshots/c/{BLOB}.{TAG}.fvprefetch-part")
        self.lay(self.repo / f"blobs/{BLOB}")
        self.lay(self.eval_cache / f"models/{BLOB}.{TAG}.fvprefetch-part")  # a URL file's begins with a dot
        self.lay(self.eval_cache / f"models/w.pth.{TAG}.partial")
        self.lay(self.state / f"receipts/{BLOB}.json")
        self.lay(self.hf_locks / f"{BLOB}.lock", b"")
        self.lay(self.state / f"locks/{BLOB}.lock", b"")
        self.assert_keeps_all()
        self.assertEqual(self.said, "fvprefetch: removed nothing\n")

    def test_nothing_behind_a_link_is_touched(self):
        outside = self.dir / "outside"
        precious = [
            self.lay(outside / f"{BLOB}.{TAG}.fvprefetch-part"),
            self.lay(outside / f".w.pth.{TAG}.fvprefetch-part"),
            self.lay(outside / f"blobs/{BLOB}.{TAG}.fvprefetch-part"),
            self.lay(outside / f"partials/{BLOB}.{TAG}.json"),
            self.lay(outside / f"tmp/{TAG}"),
            self.lay(outside / f"{BLOB}.holder"),
            self.lay(outside / f"doctor.{TAG}/link.0"),
        ]
        set_back(outside / f"doctor.{TAG}")
        for link in (
            self.eval_cache / "models",
            self.eval_cache / "clip" / f".w.pth.{TAG}.fvprefetch-part",
            self.state,
            self.hf_cache / "models--org--linked",
            self.repo / "blobs",
            self.repo / ".fvprefetch",
            self.hf_cache / "models--org--b/blobs" / f"{BLOB}.{TAG}.fvprefetch-part",
            self.hf_locks,
        ):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(outside if link.suffix != ".fvprefetch-part" else precious[0])
            set_back(link)
        self.assert_keeps_all()
        for path in precious:
            self.assertTrue(path.exists(), path)

    # --- how it is told --------------------------------------------------------------------------

    def test_a_dry_run_tells_and_changes_nothing(self):
        gone = {self.url_partial(), self.url_journal(), self.blob_partial()}
        self.url_partial("models/young.pth", age=0)
        state = lambda: {p: p.lstat().st_ctime_ns for p in self.there()}
        before = state()
        self.assertEqual(self.prune("--dry-run"), gone)
        self.assertIn("would remove 3 files", self.said)
        self.assertEqual(self.prune(env={"FVPREFETCH_DRY_RUN": "1"}), gone)
        self.assertEqual(state(), before)
        self.assertEqual(self.prune(), gone)

    def test_json_is_one_document(self):
        gone = self.lay(self.eval_cache / f"models/.w.pth.{TAG}.fvprefetch-part", b"x" * 100_000)
        young = self.blob_partial(age=0)
        told = json.loads(self.fvp("prune", "--dry-run", "--json").stdout)
        self.assertEqual((told["schema"], told["command"], told["dry_run"]), (1, "prune", True))
        self.assertEqual({f["path"]: f["state"] for f in told["files"]}, {str(gone): "orphan", str(young): "young"})
        told = json.loads(self.fvp("prune", "--json").stdout)
        self.assertEqual((told["status"], told["exit_code"], told["error"]), ("ok", 0, None))
        self.assertEqual({f["path"]: f["state"] for f in told["files"]}, {str(gone): "removed", str(young): "young"})
        self.assertEqual((told["totals"]["files_removed"], told["totals"]["bytes_removed"]), (1, 100_000))

    def test_caches_that_are_not_there_are_empty(self):
        self.assertEqual(self.prune(), set())
        self.assertEqual(self.there(), set())

    def test_of_several_ranks_one_works_and_all_end_alike(self):
        part = self.url_partial()
        done = self.mpirun(3, "prune")
        self.assertEqual(done.codes, [0, 0, 0])
        self.assertEqual(done.stdout, f"{part}\n")
        self.assertEqual(self.mpirun(3, "prune", "absent.json").codes, [5, 5, 5])

    def test_a_read_only_cache_is_an_error_only_where_something_had_to_go(self):
        self.eval_cache.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.eval_cache], check=True)
        self.addCleanup(subprocess.run, ["umount", self.eval_cache], check=True)
        self.url_partial("models/young.pth", age=0)
        read_only = ["mount", "-o", "remount,ro", self.eval_cache]
        subprocess.run(read_only, check=True)
        self.assert_keeps_all()
        subprocess.run(["mount", "-o", "remount,rw", self.eval_cache], check=True)
        stuck = [self.url_partial(), self.url_partial("models/b.pth")]
        subprocess.run(read_only, check=True)
        self.assertEqual(self.prune("--dry-run"), set(stuck))
        gone = self.blob_partial()
        self.assertEqual(self.prune(code=10), {gone})  # the rest goes all the same
        for path in stuck:
            self.assertIn(str(path), self.said)
        told = json.loads(self.fvp("prune", "--json").stdout)
        self.assertEqual((told["exit_code"], told["totals"]["files_failed"]), (10, 2))

    # --- what a manifest names -------------------------------------------------------------------

    def test_a_manifest_limits_it_to_its_own_targets(self):
        path = self.manifest([
            {"name": "w.pth", "source": self.hub.file_url("w.pth")},
            {"name": "model", "source": "org/model"},
            {"name": "again", "source": "org/model", "filename": "config.json"},
            {"name": "mine", "source": "/no/such/path.pth"},
        ])  # fmt: skip
        gone = [self.url_partial(), self.url_journal(), self.url_journal(tag="11111111"), self.blob_partial(), self.blob_journal()]
        gone.append(self.lay(self.state / f"locks/{self.key('models/w.pth')}.holder"))
        beside = self.lay(self.dir / f".manifest.lock.json.{TAG}.fvprefetch-part")  # `lock` was killed
        others = {self.url_partial("models/ww.pth"), self.url_journal("models/ww.pth")}
        others.add(self.lay(self.hf_cache / f"models--org--other/blobs/{BLOB}.{TAG}.fvprefetch-part"))
        others.add(self.lay(self.state / f"partials/{self.key('models/ww.pth')}.{TAG}.json.tmp"))
        gone.append(self.lay(self.state / f"partials/{self.key('models/w.pth')}.{TAG}.json.tmp"))
        told = json.loads(self.fvp("prune", path, "--dry-run", "--json").stdout)
        self.assertEqual(sorted(f["path"] for f in told["files"]), sorted(map(str, [*gone, beside])))  # each once
        self.assertEqual(self.prune(path), {*gone, beside})
        self.assertEqual(self.files(), others)
        self.assertEqual(self.hub.stats()["requests"], 0)

    # --- at the start of a download --------------------------------------------------------------

    def test_a_download_removes_the_old_orphans_of_its_own_target_alone(self):
        data = self.hub.put("files/w.pth", b"\x05w" * 5000)
        weights = self.hub.put("models/org/model/w.safetensors", b"\x06w" * 1000)
        blob = harness.sha256(weights)
        path = self.manifest([
            {"name": "w.pth", "source": self.hub.file_url("w.pth")},
            {"name": "model", "source": "org/model", "include": ["*.safetensors"]},
        ])  # fmt: skip
        gone = {
            self.url_partial(),
            self.url_journal(tag="11111111"),
            self.url_partial(tag="22222222"),
            self.url_journal(tag="22222222"),  # could be gone on with, by another file's digest
            self.blob_partial(blob),
            self.blob_journal(blob, tag="11111111"),
        }
        kept = {
            self.url_partial(tag="33333333", age=0),
            self.url_partial(tag="44444444", age=100 * DAY),
            self.url_journal(tag="44444444", owner=self.this_process()),
            self.url_partial("models/w.pth2"),
            self.url_journal("models/other.pth"),
            self.blob_partial("cd" * 32),
            self.blob_journal("cd" * 32, tag="11111111"),
            self.lay(self.repo / f"blobs/{blob}.{TAG}.incomplete"),
        }
        done = self.fvp(path)
        self.assert_ok(done)
        self.assertNotIn("prune", done.stderr)
        self.assertEqual((self.eval_cache / "models/w.pth").read_bytes(), data)
        self.assertEqual(self.files() & gone, set())
        self.assertEqual(self.files() & kept, kept)

    def test_what_can_be_gone_on_with_is_gone_on_with_however_old(self):
        path, left = self.killed()
        for one in left:
            set_back(one, 100 * DAY)
        done = self.fvp(path, "--json")
        self.assert_ok(done)
        self.assertEqual(json.loads(done.stdout)["entries"][0]["state"], "resumed")
        self.assertEqual(self.files() & left, set())

    def test_what_is_of_use_stays_until_the_download_is_published(self):
        path = self.manifest([{"name": "w.pth", "source": self.hub.file_url("w.pth"), "sha256": BLOB}])
        part, journal = self.url_partial(), self.url_journal(owner={**self.this_process(), "boot": "elsewhere"})
        useless = {self.url_partial(tag="11111111"), self.url_journal(tag="22222222")}
        self.assert_ok(self.fvp(path, "--retries", "0"), 5)
        self.assertEqual(self.files() & {part, journal, *useless}, {part, journal})
        data = self.hub.put("files/w.pth", b"\x05w" * 5000)
        path = self.manifest([{"name": "w.pth", "source": self.hub.file_url("w.pth"), "sha256": harness.sha256(data)}])
        self.assert_ok(self.fvp(path))
        self.assertEqual(self.files() & {part, journal}, set())

    def test_a_warm_run_removes_nothing_and_writes_nothing(self):
        self.hub.put("files/w.pth", b"\x05w" * 5000)
        path = self.manifest([{"name": "w.pth", "source": self.hub.file_url("w.pth")}])
        self.assert_ok(self.fvp(path))
        self.url_partial()
        self.url_journal()
        state = lambda: {p: p.lstat().st_ctime_ns for p in self.there()}
        before = state()
        self.assert_ok(self.fvp(path))
        self.assertEqual(state(), before)


if __name__ == "__main__":
    harness.main()
