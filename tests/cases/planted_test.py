"""Odd things at names that the program uses: whoever may write in a shared folder can put anything there."""

import fcntl
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import cases
import users
from cases import harness
from users import A

MIB = 1 << 20
SECRET = b"SSSS" * 50_000
HUGE = 1 << 40


def fifo(path, _):
    os.mkfifo(path, 0o644)


def device(path, _):
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero, which has no end


def unix_socket(path, _):
    os.mknod(path, stat.S_IFSOCK | 0o666)


def empty_folder(path, _):
    path.mkdir(0o755)


def folder(path, _):
    path.mkdir(0o755)
    (path / "in it").write_text("")


def link(path, outside):
    path.symlink_to(outside / "secret")


def dangling_link(path, outside):
    path.symlink_to(outside / "made/by/us")


def link_to_itself(path, _):
    path.symlink_to(path.name)


def huge_file(path, _):
    path.touch(0o644)
    os.truncate(path, HUGE)


def file_of_another(path, _):
    path.write_text("{}")
    path.chmod(0o600)


THINGS = {
    "FIFO": fifo,
    "device": device,
    "socket": unix_socket,
    "empty folder": empty_folder,
    "folder": folder,
    "link to a private file": link,
    "dangling link": dangling_link,
    "link to itself": link_to_itself,
    "huge file": huge_file,
    "closed file of another": file_of_another,
}
FOLDERS = ("empty folder", "folder")
LINKS = ("link to a private file", "dangling link", "link to itself")


class Filled(users.Users):
    """A group's cache that one of its members has filled."""

    def setUp(self):
        super().setUp()
        self.data = self.hub.put("files/a.bin", b"\x05a" * 2500)
        self.weights = b"\x07w" * 3000
        for path, data in {"config.json": b"{}", "w.bin": self.weights}.items():
            self.hub.put("models/org/model/" + path, data)
        self.path = self.manifest(
            [{"name": "a.bin", "source": self.hub.file_url("a.bin")}, {"name": "model", "source": "org/model"}]
        )
        self.share(self.eval_cache, self.hf_cache)
        self.assert_ok(self.fvp_as(A, self.path))
        self.outside = self.dir / "outside"
        self.outside.mkdir()
        self.outside.chmod(0o777)
        (self.outside / "secret").write_bytes(SECRET)
        (self.outside / "secret").chmod(0o644)  # a link to it must not be followed though it could be
        repo = self.hf_cache / "models--org--model"
        (pointer,) = (repo / "snapshots").rglob("w.bin")
        self.pointer = pointer
        self.blob = pointer.resolve()
        commit = pointer.parent.name
        state = self.eval_cache / ".fvprefetch"
        key = hashlib.sha256(b"models/a.bin").hexdigest()
        locks = self.hf_cache / ".locks/models--org--model"
        (receipt,) = (repo / ".fvprefetch/receipts").iterdir()
        self.places = {
            "lock of a URL file": state / f"locks/{key}.lock",
            "lease of a URL file": state / f"locks/{key}.lease",
            "holder of a URL file": state / f"locks/{key}.holder",
            "receipt of a URL file": state / f"receipts/{key}.json",
            "lock of a blob": locks / f"{self.blob.name}.lock",
            "holder of a blob": locks / f"{self.blob.name}.holder",
            "lock of a snapshot": locks / f"{commit}.lock",
            "lease of a snapshot": locks / f"{commit}.lease",
            "receipt of a snapshot": receipt,
            "ref": repo / "refs/main",
            "tree list": repo / f"trees/{commit}.json",
            "blob": self.blob,
            "pointer": pointer,
            "snapshot": pointer.parent,
            "tag of the cache": self.hf_cache / "CACHEDIR.TAG",
            "folder of locks": state / "locks",
            "folder of receipts": state / "receipts",
            "our folder": state,
            "our folder in a repository": repo / ".fvprefetch",
            "folder of refs": repo / "refs",
            "folder of blobs": repo / "blobs",
        }
        self.full = self.dir / "full"
        self.full.mkdir()
        for cache in (self.eval_cache, self.hf_cache):
            self.copy(cache, self.full / cache.name)

    def copy(self, source, target):
        subprocess.run(["cp", "-a", source, target], check=True)

    def renew(self):
        for cache in (self.eval_cache, self.hf_cache):
            shutil.rmtree(cache)
            self.copy(self.full / cache.name, cache)
        # So that both entries are fetched again: every name is looked at, and made anew.
        (self.eval_cache / "models/a.bin").unlink()
        self.pointer.unlink()
        self.blob.unlink()

    def came_to(self, place, *words):
        """"exit 0, whole", "exit 10, told", or what else it came to."""
        try:
            done = self.fvp_as(A, self.path, "--lease-timeout", "1s", *words)
        except subprocess.TimeoutExpired:
            return "hangs"
        text = f"exit {done.returncode}"
        if done.returncode == 0:
            right = self.read(self.eval_cache / "models/a.bin") == self.data and self.read(self.pointer) == self.weights
            text += ", whole" if right else ", other bytes"
        else:
            text += ", told" if place.name in done.stderr else f", not told: {done.stderr.strip()[:300]}"
        if (self.outside / "secret").read_bytes() != SECRET or len(list(self.outside.rglob("*"))) != 1:
            text += ", followed out of the cache"
        return text

    def read(self, path):
        try:
            return path.read_bytes() if path.is_file() and path.stat().st_size < HUGE else None
        except OSError:
            return None


class InTheWay(Filled):
    """Each thing at each name, as root has made it in a group's cache; a member of the group fetches."""

    # What cannot be gone around: nothing is fetched, and it is told by name.
    REFUSED = {
        "lock of a blob": tuple(thing for thing in THINGS if thing != "huge file"),
        "blob": FOLDERS,
        "pointer": FOLDERS,
        "ref": (*FOLDERS, "closed file of another"),
        "receipt of a snapshot": FOLDERS,
        "snapshot": tuple(thing for thing in THINGS if thing not in FOLDERS),
    }

    def expected(self, place, thing):
        if place in ("folder of locks", "folder of receipts", "our folder", "our folder in a repository", "folder of refs", "folder of blobs"):
            return "exit 0, whole" if thing in FOLDERS else "exit 10, told"
        return "exit 10, told" if thing in self.REFUSED.get(place, ()) else "exit 0, whole"

    def run_places(self, names):
        for place in names:
            path = self.places[place]
            for thing, make in THINGS.items():
                self.renew()
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
                make(path, self.outside)
                if ("folder" in place or place == "snapshot") and thing in FOLDERS:  # as another client makes it
                    users.owned(path, A, 0o775)
                self.case("in the way", f"{thing} at the {place}", self.expected(place, thing), self.came_to(path))

    def test_locks(self):
        self.run_places([place for place in self.places if place.startswith("lock")])

    def test_leases_and_holders(self):
        self.run_places([place for place in self.places if place.startswith(("lease", "holder"))])

    def test_records(self):
        self.run_places(["receipt of a URL file", "receipt of a snapshot", "ref", "tree list", "tag of the cache"])

    def test_files(self):
        self.run_places(["blob", "pointer", "snapshot"])

    def test_folders(self):
        self.run_places([place for place in self.places if "folder" in place])


class SecondNames(Filled):
    """A second name of a member's private file, at the name of a lock."""

    def test_it_keeps_its_mode(self):
        private = self.dir / "home/private"
        private.write_bytes(SECRET)
        users.owned(private, A, 0o600)
        for place, path in self.places.items():
            if not place.startswith("lock"):
                continue
            self.renew()
            path.unlink(missing_ok=True)
            os.link(private, path)
            seen = self.came_to(path)
            status = private.stat()
            kept = private.read_bytes() == SECRET and status.st_gid == users.PRIMARY
            seen += f", {stat.S_IMODE(status.st_mode):o}" + ("" if kept else ", changed")
            self.case("in the way", f"second name of a private file at the {place}", "exit 0, whole, 600", seen)


class Farms(Filled):
    """A cache whose files are links to another's."""

    def test_links_to_files_are_read(self):
        for cache in (self.eval_cache, self.hf_cache):
            shutil.rmtree(cache)
            subprocess.run(["cp", "-as", self.full / cache.name, cache], check=True)
        done = self.fvp_as(A, self.path, "--offline")
        seen = self.seen(done, self.pointer, self.weights) + (", told" if "warning" in done.stderr else "")
        self.case("links to files", "a farm of links, offline", "exit 0, whole", seen)

    def test_each_of_ours_alone(self):
        for place in ("ref", "tree list", "receipt of a snapshot"):
            path = self.places[place]
            moved = self.outside / path.name
            path.rename(moved)
            path.symlink_to(moved)
            done = self.fvp_as(A, self.path, "--offline")
            seen = self.seen(done, self.pointer, self.weights) + (", told" if "warning" in done.stderr else "")
            self.case("links to files", f"the {place}", "exit 0, whole", seen)
            path.unlink()
            moved.rename(path)


class NamesThatCannotBe(Filled):
    """Found in a cache they are somebody's doing, and no fault of the options."""

    def check(self, name, path):
        done = self.fvp_as(A, self.path)
        seen = f"exit {done.returncode}" + (", told" if path.name in done.stderr else ", not told")
        self.case("in the way", name, "exit 10, told", seen)
        self.assertNotIn("check --cache-dir", done.stderr)

    def test_a_link_with_too_many_letters(self):
        path = self.eval_cache / "models/a.bin"
        path.unlink()
        path.symlink_to("n" * 300)
        self.check("a link with 300 letters at a URL file", path)

    def test_a_file_in_the_place_of_a_folder(self):
        path = self.eval_cache / "models"
        shutil.rmtree(path)
        path.write_text("")
        self.check("a file at the folder of URL files", path)


class Partials(users.Users):
    """What lies in the place of an unfinished download, with a journal that says that it is one."""

    def setUp(self):
        super().setUp()
        self.data = random.Random(3).randbytes(3 * MIB)
        self.leaked = []
        self.share(self.eval_cache)
        self.server = None

        def answer(asked):
            # Now whatever is gone on with has been taken over.
            for path in self.eval_cache.rglob("*"):
                if path.is_file() and not path.is_symlink() and path.stat().st_uid == A and path.stat().st_nlink == 1:
                    if path.name.endswith(".fvprefetch-part") and b"SSSSSSSS" in path.read_bytes():
                        self.leaked.append(path.name)
            first, last = asked.range() or (0, None)
            body = self.data[first : (last if last is not None else len(self.data)) + 1]
            if asked.range():
                told = {"ETag": '"v1"', "Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(self.data)}"}
                return cases.Answer(206, told, body)
            return cases.Answer(200, {"ETag": '"v1"'}, body)

        self.answer = answer
        self.private = self.dir / "home/private"

    def owner(self, which):
        if which == "let go of":
            return None
        return {"host": "elsewhere", "boot": "another", "pid_namespace": "1", "pid": 1, "started": 1}

    def plant(self, which, make):
        shutil.rmtree(self.eval_cache)
        self.share(self.eval_cache)
        self.leaked.clear()
        self.private.unlink(missing_ok=True)
        self.private.write_bytes(SECRET * 10)
        users.owned(self.private, A, 0o600)
        self.server = self.server or self.site(self.answer)
        url = f"{self.server.url}/x.bin"
        path = self.manifest([{"name": "x.bin", "source": url, "sha256": hashlib.sha256(self.data).hexdigest(), "size": len(self.data)}])
        key = hashlib.sha256(b"models/x.bin").hexdigest()
        part = self.eval_cache / "models/.x.bin.00c0ffee.fvprefetch-part"
        journal = self.eval_cache / f".fvprefetch/partials/{key}.00c0ffee.json"
        for place in (part, journal):
            place.parent.mkdir(parents=True, exist_ok=True)
        ranges = [[0, 1_500_000]]
        told = {"version": 1, "size": len(self.data), "digest": "sha256:" + hashlib.sha256(self.data).hexdigest(),
                "address": hashlib.sha256(url.encode()).hexdigest(), "etag": '"v1"', "total": len(self.data),
                "done": ranges, "durable": ranges, "boot": "another", "owner": self.owner(which)}  # fmt: skip
        journal.write_text(json.dumps(told))
        make(part)
        for place in [self.eval_cache, *self.eval_cache.rglob("*")]:
            if place.is_dir() and place != part:
                os.chown(place, 0, users.GROUP)
                place.chmod(0o2775)
            elif place == journal:
                os.chown(place, 0, users.GROUP)
                place.chmod(0o664)
        return path, part

    def link_to_private(self, part):
        part.symlink_to(self.private)

    def second_name_of_private(self, part):
        os.link(self.private, part)

    def test_nothing_of_ours_is_taken_for_a_download(self):
        kinds = {
            "link to a private file": self.link_to_private,
            "second name of a private file": self.second_name_of_private,
            "FIFO": lambda part: os.mkfifo(part, 0o666),
            "device": lambda part: os.mknod(part, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
            "socket": lambda part: os.mknod(part, stat.S_IFSOCK | 0o666),
            "folder": lambda part: part.mkdir(),
            "dangling link": lambda part: part.symlink_to(self.dir / "home/made-by-us"),
            "link to itself": lambda part: part.symlink_to(part.name),
            "closed file of another": lambda part: (part.write_bytes(b"x" * 1_500_000), part.chmod(0o600)),
        }
        for which in ("of another host", "let go of"):
            for kind, make in kinds.items():
                path, part = self.plant(which, make)
                try:
                    done = self.fvp_as(A, path)
                    seen = self.seen_file(done)
                except subprocess.TimeoutExpired:
                    seen = "hangs"
                if self.leaked:
                    seen += ", leaked"
                if self.private.read_bytes() != SECRET * 10 or stat.S_IMODE(self.private.stat().st_mode) != 0o600:
                    seen += ", private file changed"
                if (self.dir / "home/made-by-us").exists():
                    seen += ", followed"
                self.case("in place of a partial", f"{kind}, {which}", "exit 0, whole", seen)

    def seen_file(self, done):
        return self.seen(done, self.eval_cache / "models/x.bin", self.data)

    def test_what_the_other_left_and_only_lets_us_read_is_copied(self):
        def make(part):
            part.write_bytes(self.data[:1_500_000])
            part.chmod(0o644)

        for which in ("of another host", "let go of"):
            path, _ = self.plant(which, make)
            done = self.fvp_as(A, path, "--json")
            told = json.loads(done.stdout)["entries"][0]["state"] if done.returncode == 0 else done.stderr
            self.case("in place of a partial", f"the other's own, to be read only, {which}", "resumed", told)


class Steps(users.Users):
    """Where the processes of a step without MPI meet. Rank 0 fails, and rank 1 is to fail with the same code."""

    def setUp(self):
        super().setUp()
        self.be_launcher()
        self.path = self.manifest([{"name": "gone.bin", "source": self.hub.file_url("gone.bin")}])
        self.steps = self.eval_cache / ".fvprefetch/steps"

    def step(self):
        def rank(number):
            return self.start(self.path, "--lease-timeout", "1s", env={
                "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2",
                "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "SLURM_NODEID": "0",
                "SLURM_NODELIST": "localhost", "SLURM_MPI_TYPE": "none",
            })  # fmt: skip

        processes = [rank(0), rank(1)]
        try:
            for process in processes:
                process.communicate(timeout=harness.PATIENCE)
        except subprocess.TimeoutExpired:
            return "hangs"
        return "exit " + " and ".join(str(process.returncode) for process in processes)

    def test_things_at_their_names(self):
        self.assertEqual(self.step(), "exit 5 and 5")
        (record,) = self.steps.glob("*.json")
        names = {"record": record, "what a rank has taken": record.with_suffix(".1.taken"), "lease": record.with_suffix(".lease")}
        outside = self.dir / "outside"
        outside.mkdir()
        (outside / "secret").write_bytes(SECRET)
        for place, path in names.items():
            for thing, make in THINGS.items():
                shutil.rmtree(self.steps)
                self.steps.mkdir()
                make(path, outside)
                seen = self.step()
                if (outside / "secret").read_bytes() != SECRET or len(list(outside.rglob("*"))) != 1:
                    seen += ", followed out of the cache"
                self.case("in the way", f"{thing} at a step's {place}", "exit 5 and 5", seen)


class FastVideosLock(users.Users):
    """In the temporary directory, under a name that everybody knows."""

    def setUp(self):
        super().setUp()
        self.data = self.hub.put("files/a.bin", b"\x05a" * 2500)
        self.tmp = Path(self.env["TMPDIR"])
        self.share(self.eval_cache, self.hf_cache)
        self.url = self.hub.file_url("a.bin")
        flat = self.url.replace("/", "-")
        self.lock = self.tmp / (hashlib.sha256(flat.encode()).hexdigest() + flat + ".lock")

    def fetch(self, *words):
        (self.eval_cache / "models/a.bin").unlink(missing_ok=True)
        done = self.fvp_as(A, "ensure", self.url, *words)
        return self.seen(done, self.eval_cache / "models/a.bin", self.data)

    def test_it_is_taken(self):
        self.assertEqual(self.fetch(), "exit 0, whole")
        self.assertTrue(self.lock.exists(), sorted(self.tmp.iterdir()))

    def test_things_in_its_place(self):
        outside = self.dir / "outside"
        outside.mkdir()
        outside.chmod(0o777)
        (outside / "secret").write_bytes(SECRET)
        for thing, make in THINGS.items():
            make(self.lock, outside)
            try:
                seen = self.fetch()
            except subprocess.TimeoutExpired:
                seen = "hangs"
            if len(list(outside.rglob("*"))) != 1:
                seen += ", followed"
            self.case("FastVideo's lock", f"{thing} in its place", "exit 0, whole", seen)
            if self.lock.is_dir() and not self.lock.is_symlink():
                shutil.rmtree(self.lock)
            else:
                self.lock.unlink()

    def test_somebody_holds_it_and_does_not_let_go(self):
        with open(self.lock, "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            for words in (["--lock-timeout", "1s"], []):
                seen = self.fetch(*words)
                self.case("FastVideo's lock", f"held by a stranger {' '.join(words)}", "exit 0, whole", seen)

    def test_nothing_of_an_address_that_may_be_secret_is_in_its_name(self):
        for suffix in ("?token=geheim", "#geheim", "?a=b#geheim"):
            done = self.fvp_as(A, "ensure", self.url + suffix, "--name", "s.bin")
            told = [p.name for p in self.tmp.iterdir() if "geheim" in p.name or "?" in p.name or "#" in p.name]
            self.case("FastVideo's lock", f"address with {suffix[0]}", "exit 0, nothing told",
                      f"exit {done.returncode}, {told or 'nothing told'}")  # fmt: skip
            (self.eval_cache / "models/s.bin").unlink(missing_ok=True)


if __name__ == "__main__":
    users.main()
