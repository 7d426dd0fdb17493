"""A cache with every known wound is repaired, or what is wrong is said: never used as it is.

Each wound is given to a cache that each generation of huggingface_hub wrote, and to one of ours.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import interop
from interop import MODEL

ENTRY = {"source": "org/model"}
WEIGHTS = "model.safetensors"
DIGEST = interop.harness.sha256(MODEL["main"][WEIGHTS])
NOBODY = 65534

READ_ONLY = 'mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


class Ours:
    name, version = "fvprefetch", "this one"


class Wounded(interop.Interop):
    direction = "wounded, then ours"

    def setUp(self):
        super().setUp()
        if isinstance(self.client, Ours):
            self.ours(ENTRY)
        else:
            self.value("snapshot_download", repo_id="org/model", cache_dir=str(self.hf_cache))
        self.repo = self.hf_cache / "models--org--model"
        self.commit_id = self.commit()
        self.snapshot = self.repo / "snapshots" / self.commit_id
        self.blob = self.repo / "blobs" / DIGEST
        self.ref = self.repo / "refs/main"
        self.assert_content(self.snapshot, MODEL["main"])
        self.hub.reset()

    def assert_whole(self):
        """For us, for the newest Python, and for its scanner."""
        self.assert_content(self.snapshot, MODEL["main"])
        for client in (interop.HUB_0, interop.NEWEST):
            folder = self.value(
                "snapshot_download", client=client, offline=True, repo_id="org/model", cache_dir=str(self.hf_cache)
            )
            self.assertEqual(folder, str(self.snapshot))
        scanned = self.value("scan_cache_dir", client=interop.NEWEST, cache_dir=str(self.hf_cache))
        self.assertEqual(scanned["warnings"], [])

    def repaired(self, bodies=None):
        """Online; `bodies` are the files that may be sent again."""
        self.ours(ENTRY)
        if bodies is not None:
            self.assertEqual(self.hub.stats()["body_bytes"], sum(len(MODEL["main"][path]) for path in bodies))
        self.assert_whole()

    def reported(self, done, code, *words):
        self.assert_ok(done, code)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertEqual(done.stdout, "")

    def offline(self):
        done = self.fvp(self.manifest([{"name": "it", **ENTRY}]), "--offline")
        self.assert_no_request()
        return done


@interop.for_each((*interop.PYTHONS, Ours()), globals())
class Wounds(Wounded):
    def truncate(self):
        os.truncate(self.blob, 1000)

    def is_listed(self):
        """Whether the cache itself says what the snapshot holds: before 1.22 Python kept no listing."""
        return bool(list(self.repo.glob("trees/*.json")))

    def assert_unverified(self):
        """Offline, without a listing: taken as it is, like Python does, but marked."""
        done = self.fvp(self.manifest([{"name": "it", **ENTRY}]), "--offline", "--json")
        self.assert_ok(done)
        self.assertEqual(json.loads(done.stdout)["entries"][0]["verified_by"], "unverified")

    def lose_the_blob(self):
        self.blob.unlink()

    def test_a_truncated_blob(self):
        self.truncate()
        self.repaired(bodies=[WEIGHTS])

    def test_a_truncated_blob_offline(self):
        # Also where nothing lists it: it is opened, and its name is its digest.
        self.truncate()
        done = self.offline()
        self.assertIn(done.returncode, (8, 12), done.stderr)
        self.reported(done, done.returncode, WEIGHTS)

    def test_a_dangling_link(self):
        self.lose_the_blob()
        self.repaired(bodies=[WEIGHTS])

    def test_a_dangling_link_offline(self):
        self.lose_the_blob()
        self.reported(self.offline(), 12, WEIGHTS)

    def test_a_lost_link(self):
        (self.snapshot / WEIGHTS).unlink()
        self.repaired(bodies=[])

    def test_a_lost_link_offline(self):
        (self.snapshot / WEIGHTS).unlink()
        if self.is_listed():
            self.reported(self.offline(), 12, WEIGHTS)
        else:
            self.assert_unverified()

    def test_an_empty_ref(self):
        self.ref.write_bytes(b"")
        self.repaired(bodies=[])
        self.assertEqual(self.ref.read_bytes(), self.commit_id.encode())

    def test_an_empty_ref_offline(self):
        self.ref.write_bytes(b"")
        self.reported(self.offline(), 12, "main")

    def test_a_ref_with_a_newline(self):
        self.ref.write_bytes(self.commit_id.encode() + b"\n")
        self.repaired(bodies=[])
        self.assertEqual(self.ref.read_bytes(), self.commit_id.encode())

    def test_a_ref_with_a_newline_offline(self):
        self.ref.write_bytes(self.commit_id.encode() + b"\n")
        done = self.offline()
        if done.returncode == 0:  # then no client may stumble over it after us
            self.assertEqual(str(self.folder_of(done)), str(self.snapshot))
            self.assertEqual(self.ref.read_bytes(), self.commit_id.encode())
        else:
            self.reported(done, 12, "main")

    def test_a_ref_without_its_snapshot(self):
        shutil.rmtree(self.repo / "snapshots")
        self.repaired(bodies=[])

    def test_no_refs_folder(self):
        shutil.rmtree(self.repo / "refs")
        self.repaired(bodies=[])

    def old_incomplete(self, data):
        (self.snapshot / WEIGHTS).unlink()
        self.blob.unlink()
        self.blob.with_name(DIGEST + ".incomplete").write_bytes(data)
        self.repaired(bodies=[WEIGHTS])
        self.assertEqual(self.blob.read_bytes(), MODEL["main"][WEIGHTS])

    def test_a_leftover_incomplete_file_of_the_right_size(self):
        self.old_incomplete(bytes(len(MODEL["main"][WEIGHTS])))

    def test_a_leftover_incomplete_file_of_a_part(self):
        self.old_incomplete(MODEL["main"][WEIGHTS][:100_000])

    def test_a_leftover_incomplete_file_that_is_too_long(self):
        self.old_incomplete(MODEL["main"][WEIGHTS] + b"more")

    def test_a_listing_that_is_broken(self):
        listing = self.repo / f"trees/{self.commit_id}.json"
        listing.parent.mkdir(exist_ok=True)
        listing.write_bytes(b'{"format_version": 1, "files": {"config.js')
        self.repaired(bodies=[])

    def test_a_marker_that_says_a_file_does_not_exist(self):
        marker = self.repo / ".no_exist" / self.commit_id / "config.json"
        marker.parent.mkdir(parents=True)
        marker.touch()
        (self.snapshot / "config.json").unlink()
        self.repaired(bodies=[])
        found = self.value(
            "try_to_load_from_cache", client=interop.NEWEST, repo_id="org/model", filename="config.json",
            cache_dir=str(self.hf_cache),
        )  # fmt: skip
        self.assertEqual(found, str(self.snapshot / "config.json"))

    def test_copies_instead_of_links_are_as_good(self):
        # As huggingface_hub writes where there are no links.
        for path in MODEL["main"]:
            blob = (self.snapshot / path).resolve()
            (self.snapshot / path).unlink()
            blob.rename(self.snapshot / path)
        before = interop.tree(self.snapshot)
        self.repaired(bodies=[])
        self.assertEqual(interop.tree(self.snapshot), before)

    # --- the shared store of 1.32 and later: blobs/<etag> is a link to <cache>/blobs/<xx>/<hash> ----

    def share(self):
        payload = self.hf_cache / "blobs/ab" / ("ab" * 32)
        payload.parent.mkdir(parents=True)
        (self.hf_cache / "blobs/.huggingface-shared-blobs").write_bytes(b"1\n")
        self.blob.rename(payload)
        payload.chmod(0o444)
        self.blob.symlink_to(os.path.relpath(payload, self.blob.parent))
        return payload

    def test_a_blob_in_the_shared_store_is_a_hit_and_stays_there(self):
        payload = self.share()
        before = interop.tree(self.hf_cache / "blobs")
        self.ours(ENTRY)
        self.assert_no_body()
        self.assert_content(self.snapshot, MODEL["main"])
        self.assertEqual(interop.tree(self.hf_cache / "blobs"), before)
        self.assertEqual(self.blob.resolve(), payload.resolve())

    def test_a_blob_that_the_shared_store_lost(self):
        self.share().unlink()
        self.ours(ENTRY)
        self.assert_content(self.snapshot, MODEL["main"])
        self.assertTrue(self.blob.is_file())

    def test_a_truncated_blob_in_the_shared_store_is_not_written_through(self):
        payload = self.share()
        os.truncate(payload, 1000)
        before = interop.tree(self.hf_cache / "blobs")
        self.ours(ENTRY)
        self.assert_content(self.snapshot, MODEL["main"])
        self.assertEqual(interop.tree(self.hf_cache / "blobs"), before)

    # --- rights ----------------------------------------------------------------------------------

    def read_only(self, *options):
        """Our command while the cache is mounted read-only, for it alone."""
        path = self.manifest([{"name": "it", **ENTRY}])
        argv = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", self.hf_cache, self.command(), path, *options]
        return self.run_command(argv)

    def test_a_read_only_mount(self):
        before = interop.tree(self.hf_cache)
        done = self.read_only()
        self.assert_ok(done)
        self.assertEqual(str(self.folder_of(done)), str(self.snapshot))
        self.assert_no_body()
        self.assertEqual(interop.tree(self.hf_cache), before)

    def test_a_read_only_mount_offline(self):
        done = self.read_only("--offline")
        self.assert_ok(done)
        self.assertEqual(str(self.folder_of(done)), str(self.snapshot))
        self.assert_no_request()

    def test_a_read_only_mount_that_lacks_a_file(self):
        self.lose_the_blob()
        self.reported(self.read_only(), 10, str(self.hf_cache), "Read-only file system")

    def as_nobody(self, lock_mode):
        """Our command as another user, who owns the cache but not the lock file of the missing blob."""
        self.lose_the_blob()
        lock = self.hf_cache / f".locks/models--org--model/{DIGEST}.lock"
        lock.touch()
        for path in [self.hf_cache, *self.hf_cache.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        os.chown(lock, 0, 0)
        lock.chmod(lock_mode)
        self.dir.chmod(0o755)
        self.eval_cache.mkdir()
        os.chown(self.eval_cache, NOBODY, NOBODY)
        command = shutil.copy(self.command(), self.dir / "fvprefetch")  # wherever the build lies
        argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", command, "--mpi", "off"]
        return lock, self.run_command([*argv, self.manifest([{"name": "it", **ENTRY}])])

    def test_another_users_lock_file(self):
        _, done = self.as_nobody(0o644)
        self.assert_ok(done)
        self.assert_whole()

    def test_another_users_lock_file_that_may_not_be_read(self):
        lock, done = self.as_nobody(0o600)
        self.reported(done, 10, str(lock))


@interop.for_each(interop.PYTHONS, globals())
class Killed(interop.Interop):
    """A download that was killed is finished by the other side."""

    direction = "killed, then the other"

    def setUp(self):
        super().setUp()
        self.env.update(interop.QUIET)
        self.hub.faults({"path": "/lfs/*", "kind": "stall", "after_bytes": 50_000})

    def run_until(self, what, argv, condition):
        """Kills it in the middle."""
        process = subprocess.Popen(
            [str(a) for a in argv], env=self.env, cwd=self.dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(lambda: process.poll() is None and process.kill())
        self.wait_for(what, condition)
        process.kill()
        process.wait(interop.harness.PATIENCE)
        self.assertEqual(process.returncode, -interop.harness.signal.SIGKILL)
        self.hub.no_faults()

    def test_theirs_is_finished_by_us(self):
        code = "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1])"
        argv = [self.client.interpreter(), "-c", code, "org/model"]
        blobs = f"models--org--model/blobs/{DIGEST}*.incomplete"
        self.run_until("a download of theirs", argv, lambda: list(self.hf_cache.glob(blobs)))
        done = self.ours(ENTRY)
        self.assert_content(self.folder_of(done), MODEL["main"])
        folder = self.value("snapshot_download", offline=True, repo_id="org/model", cache_dir=str(self.hf_cache))
        self.assert_content(folder, MODEL["main"])

    def test_ours_is_finished_by_them(self):
        parts = f"models--org--model/blobs/{DIGEST}*.fvprefetch-part"
        argv = [self.command(), self.manifest([{"name": "it", **ENTRY}])]
        self.run_until("a download of ours", argv, lambda: list(self.hf_cache.glob(parts)))
        folder = self.value("snapshot_download", repo_id="org/model", cache_dir=str(self.hf_cache))
        self.assert_content(folder, MODEL["main"])
        scanned = self.value("scan_cache_dir", client=interop.NEWEST, cache_dir=str(self.hf_cache))
        self.assertEqual(scanned["warnings"], [])
        self.hub.reset()
        self.assertEqual(str(self.folder_of(self.ours(ENTRY))), folder)
        self.assert_no_body()


if __name__ == "__main__":
    interop.main()
