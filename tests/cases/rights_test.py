"""Who may read and write what: group caches, umasks, and files that are there and closed."""

import io
import json
import os
import random
import re
import shutil
import tarfile
import time

import users
from cases import harness
from users import OUTSIDER, A, B

MIB = 1 << 20
DAY = 24 * 3600


class GroupCaches(users.Users):
    """Two members of one group, under each umask, in a cache with and without the set-group-ID bit."""

    def setUp(self):
        super().setUp()
        self.big = self.hub.put("files/big.bin", random.Random(7).randbytes(6 * MIB))
        self.data = self.hub.put("files/a.bin", b"\x05a" * 2500)
        self.hub.put("files/b.bin", b"\x06b" * 2500)
        for path, data in {"config.json": b"{}", "w.bin": b"\x07w" * 3000, "sub/vocab.txt": b"a\nb\n"}.items():
            self.hub.put("models/org/model/" + path, data)
        self.first = self.manifest(
            [
                {"name": "a.bin", "source": self.hub.file_url("a.bin")},
                {"name": "model", "source": "org/model", "include": ["config.json", "sub/*"]},
            ],
            "first.json",
        )
        self.second = self.manifest(
            [
                {"name": "a.bin", "source": self.hub.file_url("a.bin")},
                {"name": "b.bin", "source": self.hub.file_url("b.bin"), "dest": "models/deeper/b.bin"},
                {"name": "model", "source": "org/model"},
            ],
            "second.json",
        )

    def clear(self, setgid):
        for cache in (self.eval_cache, self.hf_cache):
            shutil.rmtree(cache, ignore_errors=True)
        self.share(self.eval_cache, self.hf_cache, setgid=setgid)

    def seen_rights(self, done, umask, setgid):
        """"exit 0, the group's", or what is wrong."""
        wrong = self.wrong_rights(umask, setgid, self.eval_cache, self.hf_cache)
        writable = self.writable_for(OUTSIDER, self.eval_cache, self.hf_cache)
        wrong += [f"writable for who is outside: {path}" for path in writable]
        wrong += [f"left: {p}" for p in self.dir.rglob("*.fvprefetch-new")]
        said = "" if done.returncode == 0 else f" ({done.stderr.strip()[:300]})"
        return f"exit {done.returncode}{said}, " + ("the group's" if not wrong else "; ".join(wrong[:4]))

    def for_each(self, kind, steps):
        """`steps(umask)`: pairs of a name and a function that runs it."""
        for umask in (0o077, 0o027, 0o002):
            for setgid in (True, False):
                self.clear(setgid)
                where = f"umask {umask:03o}, {'setgid' if setgid else 'no setgid'}"
                for name, step in steps(umask):
                    done = step()
                    self.case(kind, f"{where}: {name}", "exit 0, the group's", self.seen_rights(done, umask, setgid))

    def test_fetch_hit_extend_refresh_lock_and_repair(self):
        def damage():
            os.truncate(self.eval_cache / "models/a.bin", 100)
            blob = next((self.hf_cache / "models--org--model/snapshots").rglob("w.bin")).resolve()
            data = blob.read_bytes()
            owner = blob.stat()
            os.utime(blob, ns=(owner.st_atime_ns, owner.st_mtime_ns))
            blob.write_bytes(b"\0" + data[1:])

        def repair(umask):
            damage()
            return self.fvp_as(A, "verify", self.second, "--repair", umask=umask)

        def lock(umask):
            own = self.dir / "own"
            shutil.rmtree(own, ignore_errors=True)
            own.mkdir()
            os.chown(own, B, users.PRIMARY)
            shutil.copy(self.second, own / "m.json")
            (own / "m.json").chmod(0o644)
            return self.fvp_as(B, "lock", own / "m.json", umask=umask)

        self.for_each(
            "group cache",
            lambda umask: [
                ("fetch by one", lambda: self.fvp_as(A, self.first, umask=umask)),
                ("hit of the other", lambda: self.fvp_as(B, self.first, umask=umask)),
                ("extended by the other", lambda: self.fvp_as(B, self.second, umask=umask)),
                ("refreshed by the first", lambda: self.fvp_as(A, self.second, "--refresh", umask=umask)),
                ("locked by the other", lambda: lock(umask)),
                ("repaired by the first", lambda: repair(umask)),
            ],
        )

    def test_resume_and_prune_of_what_the_other_left(self):
        entry = {"name": "big.bin", "source": self.hub.file_url("big.bin"), "sha256": harness.sha256(self.big)}
        path = self.manifest([entry], "big.json")

        def leave(umask):
            self.hub.faults({"path": "/files/big.bin", "kind": "stall", "after_bytes": 3 * MIB})
            process = self.start_as(A, path, "--connections", "1", umask=umask)

            def recorded():
                journals = list(self.eval_cache.rglob("partials/*.json"))
                return process.poll() is not None or any(json.loads(j.read_text())["done"] for j in journals)

            self.wait_for("a journal", recorded)
            process.kill()  # setpriv and bash have become the command itself
            process.communicate(timeout=harness.PATIENCE)
            self.hub.no_faults()
            shutil.rmtree(self.eval_cache / ".fvprefetch/locks")  # else the lease is waited for, if but for a moment

        def resume(umask):
            leave(umask)
            done = self.fvp_as(B, path, "--json", umask=umask)
            state = json.loads(done.stdout)["entries"][0]["state"]
            if state != "resumed":
                done.returncode, done.stderr = f"0 but {state}", done.stderr
            return done

        def prune(umask):
            (self.eval_cache / "models/big.bin").unlink()
            leave(umask)
            then = time.time() - DAY - 60
            for left in [*self.eval_cache.rglob("*.fvprefetch-part"), *self.eval_cache.rglob("partials/*.json")]:
                os.utime(left, (then, then))
            done = self.fvp_as(B, "prune", umask=umask)
            if list(self.eval_cache.rglob("*.fvprefetch-part")):
                done.returncode = f"{done.returncode} but left"
            return done

        self.for_each(
            "group cache",
            lambda umask: [
                ("resumed by the other", lambda: resume(umask)),
                ("pruned by the other", lambda: prune(umask)),
            ],
        )

    def test_a_name_that_others_can_find_has_its_mode_and_group_already(self):
        private = re.compile(r"(\.fvprefetch-(new|part|unpack)|\.lease-record|/tmp/[0-9a-f]{8}|\.json\.tmp|\.holder\.[0-9a-f]{8})$")
        for umask in (0o077, 0o022, 0o002):
            for setgid in (True, False):
                self.clear(setgid)
                log = self.dir / "modes.log"
                log.unlink(missing_ok=True)
                shim = harness.BUILD / "tests/shims/liblogging_modes.so"
                log.touch()
                log.chmod(0o666)
                done = self.fvp_as(A, self.second, umask=umask, env={"LD_PRELOAD": str(shim), "FVP_SHIM_LOG": str(log)})
                self.assert_ok(done)
                lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
                late = sorted({path for _, path in lines if path.startswith(str(self.dir)) and not private.search(path)})
                name = f"umask {umask:03o}, {'setgid' if setgid else 'no setgid'}: what changes under its final name"
                self.case("mode before the name", name, "nothing", "; ".join(late) or "nothing")
                if umask != 0o002 or not setgid:
                    self.assertTrue(lines, "the shim has seen nothing")

    def test_a_folder_of_everybody_gives_nothing_to_the_primary_group(self):
        """As /tmp, or scratch: writable for all, and the user is no member of its group."""
        for umask in (0o077, 0o027, 0o022):
            self.clear(False)
            for cache in (self.eval_cache, self.hf_cache):
                os.chown(cache, 0, 0)
                cache.chmod(0o777)
            done = self.fvp_as(A, self.second, umask=umask)
            writable = [p for p in self.writable_for(OUTSIDER, self.eval_cache, self.hf_cache)
                        if p not in (str(self.eval_cache), str(self.hf_cache))]  # fmt: skip
            seen = f"exit {done.returncode}, " + ("nothing" if not writable else "; ".join(writable[:4]))
            self.case("another group", f"umask {umask:03o}: what a stranger may write to", "exit 0, nothing", seen)


class Closed(users.Users):
    """Files that are there, and that this user may not open."""

    def setUp(self):
        super().setUp()
        self.hub.put("files/a.bin", b"\x05a" * 2500)
        for path, data in {"config.json": b"{}", "w.bin": b"\x07w" * 3000}.items():
            self.hub.put("models/org/model/" + path, data)
        self.own = self.dir / "own"
        self.own.mkdir()
        (self.own / "p.bin").write_bytes(b"\x08p" * 100)
        entries = {
            "url": {"name": "a.bin", "source": self.hub.file_url("a.bin")},
            "hub": {"name": "model", "source": "org/model"},
            "file": {"name": "w", "source": "org/model", "filename": "w.bin"},
            "path": {"name": "p", "source": str(self.own / "p.bin")},
        }
        self.only = {name: self.manifest([entry], f"{name}.json") for name, entry in entries.items()}
        self.share(self.eval_cache, self.hf_cache)
        self.assert_ok(self.fvp_as(A, self.manifest(list(entries.values()), "all.json")))
        self.repo = self.hf_cache / "models--org--model"
        (self.weights,) = (self.repo / "snapshots").rglob("w.bin")

    COMMANDS = {
        "fetch": [[]],
        "offline": [["--offline"]],
        "every file": [["--visible-check", "all"]],
        "status": [["status"]],
        "plan": [["plan"]],
        "exec": [["exec"], ["--", "true"]],
        "verify": [["verify"]],
    }

    def closed(self, manifest, what, path, mode):
        before = path.stat().st_mode
        path.chmod(mode)
        for command, words in self.COMMANDS.items():
            first, last = words[0], words[1] if len(words) > 1 else []
            begin = time.monotonic()
            done = self.fvp_as(B, *(first if first and not first[0].startswith("-") else []), self.only[manifest],
                               *(first if first and first[0].startswith("-") else []), *last)  # fmt: skip
            told = path.name in done.stderr + done.stdout
            waited = time.monotonic() - begin > 50
            seen = f"exit {done.returncode}, " + ("told" if told else "not told") + (", waited" if waited else "")
            self.case("closed to this user", f"{what}: {command}", "exit 10, told", seen)
        path.chmod(before)
        self.assert_ok(self.fvp_as(B, self.only[manifest], "--offline"))

    def test_a_url_file(self):
        self.closed("url", "URL file of somebody else, 0600", self.eval_cache / "models/a.bin", 0o600)

    def test_the_folder_of_url_files(self):
        self.closed("url", "its folder, 0700", self.eval_cache / "models", 0o700)

    def test_a_blob(self):
        blob = self.weights.resolve()
        self.closed("hub", "a blob, 0600", blob, 0o600)
        self.closed("file", "a blob of one file, 0600", blob, 0o600)

    def test_a_folder_of_an_unpacked_tree(self):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as out:
            for name in ("top/one.txt", "top/deep/two.txt"):
                member = tarfile.TarInfo(name)
                member.size = 5
                out.addfile(member, io.BytesIO(b"hello"))
        self.hub.put("files/t.tar", packed.getvalue())
        entry = {"name": "tree", "source": self.hub.file_url("t.tar"), "dest": "models/tree", "unpack": True}
        self.only["tree"] = self.manifest([entry], "tree.json")
        self.assert_ok(self.fvp_as(A, self.only["tree"]))
        tree = self.eval_cache / "models/tree"
        before = (tree.stat().st_ino, sorted(os.listdir(tree.parent)))
        self.closed("tree", "a folder of an unpacked tree, 0700", tree / "top/deep", 0o700)
        after = (tree.stat().st_ino, sorted(os.listdir(tree.parent)))
        self.case("closed to this user", "an unpacked tree stays where it is", before, after)

    def test_an_extra_cache(self):
        extra = self.dir / "extra"
        extra.mkdir()
        shutil.copytree(self.eval_cache, extra / "eval")
        own = self.dir / "other"
        self.share(own)
        path = extra / "eval/models/a.bin"
        for name, make in {"closed": lambda: path.chmod(0o600), "a FIFO": lambda: (path.unlink(), os.mkfifo(path))}.items():
            make()
            shutil.rmtree(own / "models", ignore_errors=True)
            done = self.fvp_as(B, self.only["url"], "--cache-dir", own, "--extra-cache", extra)
            seen = f"exit {done.returncode}, " + ("told" if "extra cache" in done.stderr and str(path) in done.stderr else "not told")
            self.case("closed to this user", f"a file of an extra cache, {name}", "exit 0, told", seen)

    def test_what_is_said_of_a_closed_manifest(self):
        os.chmod(self.only["url"], 0o600)
        done = self.fvp_as(B, self.only["url"])
        seen = f"exit {done.returncode}" + "".join(f", {word}" for word in ("write", "--cache-dir") if word in done.stderr)
        self.case("closed to this user", "a manifest, 0600", "exit 10", seen)

    def test_folders_of_a_repository(self):
        self.closed("hub", "the blobs' folder, 0700", self.repo / "blobs", 0o700)
        self.closed("hub", "the snapshot's folder, 0700", self.weights.parent, 0o700)
        self.closed("file", "the blobs' folder of one file, 0700", self.repo / "blobs", 0o700)

    def test_without_a_receipt(self):
        shutil.rmtree(self.repo / ".fvprefetch")
        self.closed("hub", "a blob of what another client fetched, 0600", self.weights.resolve(), 0o600)
        shutil.rmtree(self.repo / "trees")
        done = self.fvp_as(B, self.only["hub"], "--offline")
        self.assert_ok(done)
        blob = self.weights.resolve()
        blob.chmod(0o600)
        done = self.fvp_as(B, self.only["hub"], "--offline")
        self.case("closed to this user", "a blob of an unlisted snapshot, offline", "exit 10, told",
                  f"exit {done.returncode}, " + ("told" if blob.name in done.stderr else "not told"))  # fmt: skip

    def test_a_blob_that_another_snapshot_brought(self):
        """Its pointer is missing, the blob itself is there."""
        blob = self.weights.resolve()
        self.weights.unlink()
        blob.chmod(0o600)
        done = self.fvp_as(B, self.only["hub"])
        self.case("closed to this user", "a blob, 0600, whose link is to be made", "exit 10, told",
                  f"exit {done.returncode}, " + ("told" if blob.name in done.stderr else "not told"))  # fmt: skip

    def test_a_path_of_ones_own(self):
        path = self.own / "p.bin"
        path.chmod(0o600)
        for command in ([], ["--offline"]):
            done = self.fvp_as(B, self.only["path"], *command)
            seen = f"exit {done.returncode}, " + ("told" if "p.bin" in done.stderr else "not told")
            self.case("closed to this user", f"an existing path {' '.join(command)}", "exit 10, told", seen)

    def test_no_word_of_a_mount_and_whose_it_is(self):
        self.weights.resolve().chmod(0o600)
        done = self.fvp_as(B, self.only["hub"])
        whose = f"user {A}'s, mode rw-------" in done.stderr
        seen = f"exit {done.returncode}, {'owner' if whose else 'no owner'}, {'mount' if 'mount' in done.stderr else 'no mount'}"
        self.case("closed to this user", "what is said of a blob", "exit 10, owner, no mount", seen)


class DanglingLinks(users.Users):
    def test_snapshots_that_are_a_link_to_elsewhere(self):
        for path, data in {"config.json": b"{}", "w.bin": b"\x07w" * 3000}.items():
            self.hub.put("models/org/model/" + path, data)
        repo = self.hf_cache / "models--org--model"
        repo.mkdir(parents=True)
        (self.dir / "scratch/snapshots").mkdir(parents=True)
        (repo / "snapshots").symlink_to(self.dir / "scratch/snapshots")
        done = self.fvp("ensure", "org/model")
        dangling = [p for p in (self.dir / "scratch").rglob("*") if p.is_symlink() and not p.exists()]
        seen = f"exit {done.returncode}, {len(dangling)} dangling, {'mount' if 'mounts' in done.stderr else 'no mount'}"
        self.case("links that lead nowhere", "snapshots/ is a link to elsewhere", "exit 10, 0 dangling, no mount", seen)

    def test_folders_that_are_links_are_written_through(self):
        """Scratch: `blobs`, `refs` and our own folders may lie elsewhere, below a place that is not beside them."""
        self.hub.put("files/a.bin", b"\x05a" * 2500)
        for path, data in {"config.json": b"{}", "w.bin": b"\x07w" * 3000}.items():
            self.hub.put("models/org/model/" + path, data)
        path = self.manifest(
            [{"name": "a.bin", "source": self.hub.file_url("a.bin")}, {"name": "model", "source": "org/model"}]
        )
        places = ["hf/models--org--model", "hf/models--org--model/blobs", "hf/models--org--model/refs",
                  "hf/models--org--model/.fvprefetch", "hf/.locks", "eval/models", "eval/.fvprefetch"]  # fmt: skip
        for place in places:
            for cache in (self.eval_cache, self.hf_cache, self.dir / "scratch"):
                shutil.rmtree(cache, ignore_errors=True)
            (self.dir / place).parent.mkdir(parents=True)
            (self.dir / "scratch/it").mkdir(parents=True)
            (self.dir / place).symlink_to(self.dir / "scratch/it")
            done = self.fvp(path)
            again = self.fvp(path, "--offline")
            used = any((self.dir / "scratch/it").iterdir())
            seen = f"exit {done.returncode}, then {again.returncode}, {'used' if used else 'not used'}"
            self.case("folders that are links", place, "exit 0, then 0, used", seen)


if __name__ == "__main__":
    users.main()
