"""What lies in the caches already, put there by others, or left half-done: opened once, and told, fetched again, or a hit."""

import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
import zipfile

import cases

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 1000\n"
PAGE = b"<!DOCTYPE html><html><body>Log in</body></html>"
REFUSAL = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>' + b" " * 17  # 78 bytes
WEIGHTS = b"\x80\x02" + bytes(range(256)) * 80
NOBODY = 65534


def safetensors(data=1000, told=None):
    header = json.dumps({"w": {"dtype": "U8", "shape": [data], "data_offsets": [0, told or data]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\x05" * data


def torch_zip():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02." * 500)
    return data.getvalue()


def pytorch_zip():
    """As PyTorch's own writer makes it: zip64 records always, and an end record that tells everything all the same."""
    data = torch_zip()
    at = data.rfind(b"PK\5\6")
    entries, _, length, offset = struct.unpack_from("<HHII", data, at + 8)
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 0x31E, 45, 0, 0, entries, entries, length, offset)
    return data[:at] + end + struct.pack("<4sIQI", b"PK\6\7", 0, at, 1) + data[at:]


def commented_zip(length):
    data = io.BytesIO(torch_zip())
    with zipfile.ZipFile(data, "a") as archive:
        archive.comment = b"c" * length
    return data.getvalue()


def gguf(elements, data):
    def text(value):
        return struct.pack("<Q", len(value)) + value

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text(b"general.name") + struct.pack("<I", 8) + text(b"model")
    head += text(b"w") + struct.pack("<IQIQ", 1, elements, 0, 0)
    return head + bytes(-len(head) % 32) + b"\x01" * data


def old_torch_tar():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages"):
            info = tarfile.TarInfo(name)
            info.size = 2000
            archive.addfile(info, io.BytesIO(b"\x80\x02" * 1000))
    return data.getvalue()


def npy(header, data):
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + b"\x01" * data


def hdf5(end, size):
    head = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + bytes(8)
    head += (0).to_bytes(8, "little") + b"\xff" * 8 + end.to_bytes(8, "little") + bytes(8)
    return head + b"\x01" * (size - len(head))


# name of the file, what lies there, a word of the line that says why
WRONG = [
    ("pointer.pth", POINTER, "Git LFS pointer"),
    ("page.pth", PAGE, "HTML page"),
    ("comment.pth", b"<!-- x --><html>", "HTML page"),
    ("refusal.pth", REFUSAL, "AccessDenied"),
    ("json.bin", b'{"error": "not found"}', "JSON"),
    ("words.ckpt", b"Not found", "Not found"),
    ("page-nul.pth", PAGE + b"\0", "HTML page"),
    ("page-zeros.pth", PAGE + bytes(5000), "HTML page"),
    ("page-control.pth", b"<html>\x01\x08</html>", "HTML page"),
    ("page-latin-1.pth", "<!DOCTYPE html><title>Accès refusé</title>".encode("latin-1"), "HTML page"),
    ("pointer-zeros.safetensors", POINTER + bytes(5000), "Git LFS pointer"),
    ("refusal-nul.pth", REFUSAL + b"\0", "AccessDenied"),
    ("words-nul.pth", b"Access denied\0", "Access denied"),
    ("words-ctrl-z.pth", b"Access denied\r\n\x1a", "Access denied"),
    ("words-latin-1.pth", "Accès refusé".encode("latin-1"), "plain text"),
    ("words.ftz", b"Not found", "Not found"),
    ("words.ckpt.data-00000-of-00001", b"Not found", "Not found"),
    ("page.tgz", gzip.compress(PAGE), "gzip of an HTML page"),
    ("json.gz", gzip.compress(b'{"error": "no"}'), "gzip of JSON"),
    ("empty.pth", b"", "is empty"),
    ("empty", b"", "is empty"),
    ("zeros.pth", bytes(20_000), "zeros"),
    ("front.pt", bytes(5000) + WEIGHTS, "zeros"),
    ("zeros.bin", bytes(20_000), "zeros"),
    ("cut.safetensors", safetensors()[:-300], "cut short"),
    ("header.safetensors", safetensors()[:30], "cut short"),
    ("length.safetensors", b"\xff" * 8 + b"{" + WEIGHTS, "safetensors"),
    ("twice.safetensors", safetensors() * 2, "longer"),
    ("other.safetensors", WEIGHTS, "safetensors"),
    ("cut.pth", torch_zip()[:-100], "cut short"),
    ("half.pt", torch_zip()[:700], "cut short"),
    ("cut-torch.pth", pytorch_zip()[:-100], "cut short"),
    ("behind.pth", torch_zip() + b"more", "not its end"),
    ("comment.zip", commented_zip(5000)[:-1], "cut short"),
    ("cut.gguf", gguf(1000, 3999), "cut short"),
    ("header.gguf", gguf(1000, 0)[:60], "GGUF header"),
    ("cut-tar.pt", old_torch_tar()[:3000], "cut short"),
    ("cut-tar.tar", old_torch_tar()[:6000], "cut short"),
    ("times.npy", npy(b"{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (10,), }", 79), "cut short"),
    ("structure.npy", npy(b"{'descr': [('a', '<f4'), ('b', '<i8')], 'shape': (10,), }", 119), "cut short"),
    ("cut.npz", torch_zip()[:-30], "cut short"),
    ("cut.zip", torch_zip()[:-1], "cut short"),
    ("other.npz", WEIGHTS, "no zip"),
    ("other.gguf", WEIGHTS, "no GGUF"),
    ("cut.h5", hdf5(9000, 5000), "cut short"),
    ("other.h5", WEIGHTS, "no HDF5"),
    ("other.npy", b"\x01" + WEIGHTS, "NumPy"),
    ("other.tgz", WEIGHTS, "no gzip"),
]

RIGHT = [
    ("legacy.pth", WEIGHTS),
    ("zip.pth", torch_zip()),
    ("whole.safetensors", safetensors()),
    ("whole.npz", torch_zip()),
    ("whole.h5", hdf5(5000, 5000)),
    ("torch.pth", pytorch_zip()),
    ("torch.bin", pytorch_zip()),
    ("comment.pth", commented_zip(65535)),
    ("whole.gguf", gguf(1000, 4000)),
    ("unknown.gguf", b"GGUF\x03\0\0\0" + WEIGHTS),
    ("old.pt", old_torch_tar()),
    ("old.keras", hdf5(5000, 5000)),
    ("dumped.npy", WEIGHTS),
    ("structure.npy", npy(b"{'descr': [('a', '<f4'), ('b', '<i8')], 'shape': (10,), }", 120)),
    ("vocab.json.gz", gzip.compress(b'{"a": 1}')),
    ("app.vue", b"<script>"),
    ("numbers.bin", bytes(2000) + WEIGHTS),
    ("labels.txt", b"words"),
    ("none.txt", b""),
    ("config.json", b"{}"),
    ("plain", WEIGHTS),
    ("page.html", PAGE),
]


OTHER = b"\x80\x02other" * 1000  # of the right one's size


class Leftovers(cases.Cases):
    def lay(self, name, data, folder="models"):
        path = self.eval_cache / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def entries(self, rows, **more):
        """Entries for files that the hub has right: of each name the right bytes."""
        return [{"name": row[0], "source": self.hub.file_url("right"), **more} for row in rows]

    def lay_all(self, rows):
        for name, data, *_ in rows:
            self.lay(name, data)

    def setUp(self):
        super().setUp()
        self.right = self.hub.put("files/right", b"\x80\x02right" * 1000)

    def json(self, *args):
        done = self.fvp(*args, "--json")
        return done, json.loads(done.stdout)

    # --- files that were fetched, and changed since -----------------------------------------------

    def test_what_happened_to_a_fetched_file_since(self):
        manifest = self.manifest([{"name": "w.pth", "source": self.hub.file_url("right")}])
        self.assert_ok(self.fvp(manifest))
        file = self.eval_cache / "models/w.pth"
        [receipt] = (self.eval_cache / ".fvprefetch/receipts").iterdir()
        first = json.loads(receipt.read_text())
        for case, change, fetch, verify in (
            ("touched", lambda: os.utime(file, (1, 1)), "exit 0, hit, whole", 0),
            ("copied", lambda: file.write_bytes(self.right), "exit 0, hit, whole", 0),
            # Found by its digest alone, which only verify makes.
            ("replaced, same size", lambda: file.write_bytes(OTHER), "exit 0, hit, other bytes", 8),
            ("replaced, another size", lambda: file.write_bytes(OTHER * 2), "exit 0, fetched, whole", 0),
        ):
            change()
            for run in ("first", "second"):
                done, report = self.json(manifest)
                again = "exit 0, hit, whole" if "fetched" in fetch and run == "second" else fetch
                seen = self.seen(done, file, self.right).replace(",", f", {report['entries'][0]['state']},")
                self.case("fetched before", f"{case}, {run} run", again, seen)
            self.case("fetched before", f"{case}, verify", verify, self.fvp("verify", manifest).returncode)
            now = json.loads(receipt.read_text())
            same = [(one["source"], one["files"][0]["sha256"]) for one in (first, now)]
            self.case("fetched before", f"{case}, receipt", same[0], same[1])

    def test_another_source_of_the_same_name(self):
        self.hub.put("other/right", OTHER)
        self.assert_ok(self.fvp("ensure", self.hub.file_url("right")))
        os.utime(self.eval_cache / "models/right", (1, 1))
        for run in ("first", "second"):
            done = self.fvp("ensure", self.hub.file_url("right"))
            self.case("fetched before", f"touched, ensure, {run} run", 0, done.returncode)
        done = self.fvp("ensure", self.hub.file_url("right").replace("/files/", "/other/"))
        self.case("fetched before", "touched, ensure of another source", 2, done.returncode)

    def test_verify_of_a_file_that_may_not_be_read(self):
        file = self.lay("closed.pth", WEIGHTS)
        file.chmod(0o600)
        os.chmod(self.dir, 0o755)
        nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", self.command()]
        done = self.run_command([*nobody, "verify", self.manifest(self.entries([("closed.pth",)]))],
                                {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"})  # fmt: skip
        self.case("verify", "closed file of another", "exit 10, root named",
                  f"exit {done.returncode}, {'root' if 'root' in done.stderr else 'nobody'} named")

    # --- URL files -------------------------------------------------------------------------------

    def test_a_wrong_file_is_fetched_again_and_why_is_told(self):
        self.lay_all(WRONG)
        done = self.fvp(self.manifest(self.entries(WRONG)))
        for name, _, word in WRONG:
            path = self.eval_cache / "models" / name
            told = any(f"models/{name} " in line and word in line and "fetched again" in line for line in done.stderr.splitlines())
            self.case("wrong file", name, "exit 0, whole, told", self.seen(done, path, self.right) + (", told" if told else f", not told: {done.stderr}"))

    def test_verify_calls_it_corrupt_and_repairs_it(self):
        self.lay_all(WRONG)
        manifest = self.manifest(self.entries(WRONG))
        done, found = self.json("verify", manifest)
        for entry in found["entries"]:
            self.case("verify", entry["name"], "exit 8, corrupt", f"exit {done.returncode}, {entry['files'][0]['state']}")
        done = self.fvp("verify", manifest, "--repair")
        for name, *_ in WRONG:
            self.case("verify --repair", name, "exit 0, whole", self.seen(done, self.eval_cache / "models" / name, self.right))

    def test_offline_it_is_missing_and_why_is_told(self):
        self.lay_all(WRONG)
        done, report = self.json(self.manifest(self.entries(WRONG)), "--offline")
        for entry, (name, data, word) in zip(report["entries"], WRONG):
            error = entry["error"] or {"code": 0, "message": ""}
            told = "told" if word in error["message"] else f"not told: {error['message']}"
            kept = "kept" if (self.eval_cache / "models" / name).read_bytes() == data else "changed"
            self.case("wrong file, offline", name, "exit 12, code 12, told, kept", f"exit {done.returncode}, code {error['code']}, {told}, {kept}")
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_status_and_plan_do_not_call_it_complete(self):
        self.lay_all(WRONG)
        for command in ("status", "plan"):
            _, told = self.json(command, self.manifest(self.entries(WRONG)))
            for entry in told["entries"]:
                self.case(command, entry["name"], "missing", entry["state"])

    def test_a_right_file_is_a_hit_and_is_looked_into_once(self):
        self.lay_all(RIGHT)
        manifest = self.manifest(self.entries(RIGHT))
        for turn in ("first", "second"):
            for name, _ in RIGHT:
                file = self.eval_cache / "models" / name
                os.utime(file, ns=(0, file.stat().st_mtime_ns))
            done, report = self.json(manifest)
            was_read = {name: (self.eval_cache / "models" / name).stat().st_atime_ns != 0 for name, _ in RIGHT}
            for entry, (name, data) in zip(report["entries"], RIGHT):
                seen = self.seen(done, self.eval_cache / "models" / name, data)
                read = was_read[name]
                self.case("right file", f"{name}, {turn} run", f"exit 0, whole, hit, present{'' if turn == 'first' else ', not read'}",
                          f"{seen}, {entry['state']}, {entry['verified_by']}" + ("" if turn == "first" else ", read again" if read else ", not read"))
        self.assertEqual(self.hub.stats()["requests"], 0)
        _, found = self.json("verify", manifest)
        for entry in found["entries"]:
            self.case("verify", entry["name"], "unverifiable", entry["files"][0]["state"])

    def test_in_a_read_only_cache_it_is_looked_into_each_time(self):
        self.lay_all(RIGHT)
        self.lay("bad.pth", POINTER)
        os.chmod(self.dir, 0o755)
        manifest = self.manifest(self.entries(RIGHT))
        bad = self.manifest(self.entries([("bad.pth",)]), "bad.json")
        for path in [self.eval_cache, *self.eval_cache.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", self.command()]
        env = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
        for turn in ("first", "second"):
            done = self.run_command([*nobody, manifest], env)
            self.case("read-only", f"right files, {turn} run", "exit 0", f"exit {done.returncode}")
            done = self.run_command([*nobody, bad, "--offline"], env)
            self.case("read-only", f"pointer, {turn} run", "exit 12", f"exit {done.returncode}")
        self.assertFalse((self.eval_cache / ".fvprefetch").exists())

    def test_a_download_that_another_tool_has_not_ended(self):
        for suffix in (".aria2", ".st", ".part", ".crdownload"):
            name = f"a{suffix[1:]}.pth"
            self.lay(name, WEIGHTS)
            self.lay(name + suffix, b"\0\1")
            manifest = self.manifest(self.entries([(name,)]))
            done = self.fvp("verify", manifest)
            self.case("control file", f"{suffix}, verify", "exit 8", f"exit {done.returncode}")
            done = self.fvp(manifest)
            told = ", told" if suffix in done.stderr else f", not told: {done.stderr}"
            self.case("control file", suffix, "exit 0, whole, told", self.seen(done, self.eval_cache / "models" / name, self.right) + told)

    def test_a_control_file_says_nothing_of_what_we_fetched(self):
        self.lay("w.pth.aria2", b"\0\1")
        done = self.fvp(self.manifest(self.entries([("w.pth",)])))
        self.case("control file", "of a file that was fetched", "exit 0, whole, no warning",
                  self.seen(done, self.eval_cache / "models/w.pth", self.right) + (f", {done.stderr}" if "warning" in done.stderr else ", no warning"))

    def test_a_folder_of_an_archive_that_nothing_vouches_for(self):
        for case, names, word in (("folders", {"x/": b""}, "no file in it"), ("pointer", {"a.bin": POINTER, "b.py": b"x"}, "LFS pointer"),
                                  ("page", {"a.pth": PAGE}, "HTML page"), ("nothing", {"a.pth": b""}, "is empty"), ("code", {"a.py": b"x"}, None)):
            folder = self.eval_cache / "models" / case
            for name, data in names.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir() if name.endswith("/") else path.write_bytes(data)
            done = self.fvp(self.manifest([{"name": case, "source": self.hub.file_url("right"), "dest": f"models/{case}", "unpack": True}]))
            warned = "warning" in done.stderr and (word or "") in done.stderr
            self.case("unpacked folder", case, f"exit 0, {'warned' if word else 'silent'}", f"exit {done.returncode}, {'warned' if warned else 'silent'}")

    def test_the_size_of_the_manifest_and_of_nothing(self):
        self.lay("none.pth", b"")
        entry = {"name": "none.pth", "source": self.hub.file_url("right"), "sha256": hashlib.sha256(b"").hexdigest()}
        done = self.fvp(self.manifest([entry]), "--offline")
        self.case("pinned", "an empty file that is pinned", "exit 0", f"exit {done.returncode}")
        self.lay("text.pth", b"words")
        entry = {"name": "text.pth", "source": self.hub.file_url("right"), "sha256": hashlib.sha256(b"words").hexdigest()}
        done = self.fvp(self.manifest([entry]), "--offline")
        self.case("pinned", "text that is pinned", "exit 0, whole", self.seen(done, self.eval_cache / "models/text.pth", b"words"))

    def test_a_digest_that_a_name_tells_decides(self):
        text = b"words of somebody's"
        name = f"w-{hashlib.sha256(text).hexdigest()[:8]}.pth"
        self.lay(name, text, "torch/hub/checkpoints")
        entry = {"name": "w", "source": self.hub.file_url("right"), "dest": f"torch/hub/checkpoints/{name}"}
        done = self.fvp(self.manifest([entry]))
        self.case("name suffix", "text that is right", "exit 0, whole", self.seen(done, self.eval_cache / "torch/hub/checkpoints" / name, text))
        self.assertEqual(self.hub.stats()["requests"], 0)
        good = hashlib.sha256(self.right).hexdigest()[:8]
        self.lay(f"w-{good}.pth", b"", "torch/hub/checkpoints")
        entry = {"name": "w", "source": self.hub.file_url("right"), "dest": f"torch/hub/checkpoints/w-{good}.pth"}
        done = self.fvp(self.manifest([entry]))
        self.case("name suffix", "empty file", "exit 0, whole", self.seen(done, self.eval_cache / f"torch/hub/checkpoints/w-{good}.pth", self.right))

    def test_refresh_replaces_what_nothing_vouches_for(self):
        short = self.lay("short.pth", self.right[:2000])
        manifest = self.manifest(self.entries([("short.pth",)]))
        done = self.fvp(manifest)
        self.case("refresh", "a short file does not show", "exit 0, other bytes", self.seen(done, short, self.right))
        done = self.fvp(manifest, "--refresh", "--offline")
        self.case("refresh", "offline", "exit 0, other bytes", self.seen(done, short, self.right))
        done = self.fvp(manifest, "--refresh")
        told = ", told" if "fetched again" in done.stderr else f", not told: {done.stderr}"
        self.case("refresh", "a short file", "exit 0, whole, told", self.seen(done, short, self.right) + told)
        self.hub.reset()
        done = self.fvp(manifest, "--refresh")
        self.case("refresh", "once more", "exit 0, whole", self.seen(done, short, self.right))
        self.case("refresh", "requests of once more", 0, self.hub.stats()["requests"])

    # --- lock ------------------------------------------------------------------------------------

    def test_lock_pins_nothing_that_somebody_left(self):
        rows = [("page.pth", PAGE + b"\0", "HTML"), ("zeros.pth", POINTER + bytes(900), "LFS"), ("empty.pth", b"", "empty"), ("short.pth", self.right[:2000], "the server has"), ("pointer.pth", POINTER, "LFS"),
                ("empty", b"", "empty"), ("cut.safetensors", safetensors()[:-1], "cut short")]
        for name, data, word in rows:
            path = self.lay(name, data)
            manifest = self.manifest(self.entries([(name,)]), f"{name}.json")
            for options in ((), ("--refresh",)):
                done = self.fvp("lock", manifest, *options)
                told = "told" if word in done.stderr else f"not told: {done.stderr}"
                written = "written" if (self.dir / f"{name}.lock.json").exists() else "nothing written"
                self.case("lock", f"{name} {' '.join(options)}", "exit 12, told, nothing written", f"exit {done.returncode}, {told}, {written}")
            self.assertEqual(path.read_bytes(), data)
        self.lay("empty.pth", b"")
        self.fvp(self.manifest(self.entries([("empty.pth",)]), "filled.json"))
        done = self.fvp("lock", str(self.dir / "filled.json"))
        self.case("lock", "after a fetch", "exit 0", f"exit {done.returncode}")
        locked = json.loads((self.dir / "filled.lock.json").read_text())["entries"][0]
        self.case("lock", "what is pinned", hashlib.sha256(self.right).hexdigest(), locked["sha256"])
        self.lay("own.pth", self.right)
        manifest = self.manifest(self.entries([("own.pth",)]), "own.json")
        self.case("lock", "a file of the server's size", "exit 0", f"exit {self.fvp('lock', manifest).returncode}")

    def test_lock_learns_the_size_where_head_tells_none(self):
        body = self.right
        self.lay("w.pth", body[:-5])
        for case, head in {"405": (405, {}), "403": (403, {}), "501": (501, {}), "500": (500, {}), "429": (429, {}), "no length": (200, {}), "length 0": (200, {"Content-Length": "0"}),
                           "encoded": (200, {"Content-Length": "77", "Content-Encoding": "gzip"})}.items():
            for ranges in (True, False):
                def answer(asked, ranges=ranges):
                    if asked.range() and ranges:
                        return cases.Answer(206, {"Content-Range": f"bytes 0-0/{len(body)}"}, body[:1])
                    return cases.Answer(200, {}, body)

                site = self.site(answer)
                site.head = lambda path, head=head: head
                manifest = self.manifest([{"name": "w.pth", "source": site.url + "/w.pth"}])
                with self.subTest(case):
                    self.lay("w.pth", body[:-5])
                    done = self.fvp("lock", manifest, "--retries", "0")
                    told = "told" if "the server has" in done.stderr else f"not told: {done.stderr}"
                    self.case("lock", f"short file, HEAD {case}, ranges {ranges}", "exit 12, told", f"exit {done.returncode}, {told}")
                    self.lay("w.pth", body)
                    self.case("lock", f"right file, HEAD {case}, ranges {ranges}", "exit 0", f"exit {self.fvp('lock', manifest, '--retries', '0').returncode}")

    # --- paths of the user's own -----------------------------------------------------------------

    def test_paths_are_taken_with_a_warning(self):
        mine = self.dir / "mine"
        for name, data in (("pointer.safetensors", POINTER), ("empty.pth", b""), ("cut.pth", torch_zip()[:-5])):
            (mine / name).parent.mkdir(exist_ok=True)
            (mine / name).write_bytes(data)
        (self.dir / "clone/org/model").mkdir(parents=True)
        (self.dir / "clone/org/model/model.safetensors").write_bytes(POINTER)
        (self.dir / "clone/org/model/config.json").write_bytes(b"{}")
        (self.dir / "nothing").mkdir()
        (self.dir / "clone/a/b/c/d").mkdir(parents=True)
        (self.dir / "clone/a/b/c/d/vocab.json").write_bytes(POINTER)
        (self.dir / "dangling").mkdir()
        (self.dir / "dangling/w.pth").symlink_to("nowhere")
        (self.dir / "bare/.git").mkdir(parents=True)
        (self.dir / "bare/.git/HEAD").write_bytes(b"ref")
        (self.dir / "folders/a/b").mkdir(parents=True)
        (mine / "none.txt").write_bytes(b"")
        (self.dir / "many").mkdir()
        for i in range(150):
            (self.dir / f"many/a{i}.pth").write_bytes(WEIGHTS[:2000])
        (self.dir / "many/z.pth").write_bytes(POINTER)
        for path, word in (("mine/pointer.safetensors", "Git LFS pointer"), ("mine/empty.pth", "empty"), ("mine/cut.pth", "cut short"),
                           ("clone/org/model", "model.safetensors is a Git LFS pointer"), ("clone", "Git LFS pointer"), ("nothing", "is empty"),
                           ("clone/a", "vocab.json is a Git LFS pointer"), ("dangling", "leads to no file"), ("mine/none.txt", "is empty"), ("many", "z.pth is a Git LFS pointer"), ("bare", "no file in it"), ("folders", "no file in it")):
            done = self.fvp("ensure", self.dir / path)
            told = "told" if word in done.stderr else f"not told: {done.stderr}"
            self.case("path", path, f"exit 0, told, {self.dir / path}", f"exit {done.returncode}, {told}, {done.stdout.strip()}")
        (mine / "right.pth").write_bytes(WEIGHTS)
        done = self.fvp("ensure", mine / "right.pth")
        self.case("path", "a right one", "no warning", done.stderr if "warning" in done.stderr else "no warning")
        done = self.fvp("verify", self.manifest([{"name": "p", "source": str(mine / "pointer.safetensors")}]))
        self.case("path", "verify of a pointer", "exit 8", f"exit {done.returncode}")


class HubLeftovers(cases.Cases):
    def setUp(self):
        super().setUp()
        self.files = {"w.safetensors": safetensors(), "w.pth": WEIGHTS, "words.bin": b"words that are weights", "none.bin": b"", "config.json": b"{}"}
        for name, data in self.files.items():
            self.hub.put(f"models/org/model/{name}", data)
        self.assert_ok(self.fvp("ensure", "org/model"))
        self.repo = self.hf_cache / "models--org--model"
        self.commit = next((self.repo / "snapshots").iterdir()).name
        self.snapshot = self.repo / "snapshots" / self.commit
        shutil.rmtree(self.repo / ".fvprefetch")  # as if another client had filled it
        self.hub.reset()

    def spoil(self, name, data):
        blob = (self.snapshot / name).resolve()
        blob.chmod(0o644)
        blob.write_bytes(data)

    def wrong(self, name):
        """Of the right size, so that no list shows it."""
        return b"\x80\x03" + self.files[name][2:-1] + b"\x07"

    def json(self, *args):
        done = self.fvp(*args, "--json")
        return done, json.loads(done.stdout)

    def check(self, kind, case, name, *args):
        done = self.fvp(*args)
        told = ", told" if "fetched again" in done.stderr else f", not told: {done.stderr}"
        self.case(kind, case, "exit 0, whole, told", self.seen(done, self.snapshot / name, self.files[name]) + told)
        return done

    def test_a_whole_one_is_a_hit(self):
        done, report = self.json("ensure", "org/model")
        self.case("foreign blob", "all right", "exit 0, hit", f"exit {done.returncode}, {report['entries'][0]['state']}")
        self.assertEqual(self.hub.stats()["body_bytes"], 0)

    def test_a_refusal_that_was_published_as_a_blob(self):
        self.spoil("w.pth", REFUSAL)
        done = self.check("foreign blob", "a refusal of 78 bytes", "w.pth", "ensure", "org/model")
        self.case("foreign blob", "a refusal is named", True, "78 bytes" in done.stderr and "AccessDenied" in done.stderr)

    def test_of_the_right_size_and_without_content(self):
        for case, data in (("zeros", bytes(len(WEIGHTS))), ("page", PAGE + b" " * (len(WEIGHTS) - len(PAGE))),
                           ("page and zeros", PAGE.ljust(len(WEIGHTS), b"\0")), ("pointer and zeros", POINTER.ljust(len(WEIGHTS), b"\0"))):
            self.spoil("w.pth", data)
            self.check("foreign blob", f"{case} of the right size", "w.pth", "ensure", "org/model")
            shutil.rmtree(self.repo / ".fvprefetch")

    def test_offline_a_wrong_one_is_missing(self):
        for case, data in (("refusal", REFUSAL), ("zeros", bytes(len(WEIGHTS))), ("empty", b"")):
            self.spoil("w.pth", data)
            done = self.fvp("ensure", "org/model", "--offline")
            told = "told" if "w.pth" in done.stderr and "is there" in done.stderr else f"not told: {done.stderr}"
            self.case("foreign blob, offline", case, "exit 12, told", f"exit {done.returncode}, {told}")

    def test_offline_a_file_that_nothing_lists(self):
        shutil.rmtree(self.repo / "trees")
        for name in ("w.pth", "config.json"):
            done = self.fvp("ensure", "org/model", "--filename", name, "--offline")
            warned = "warned" if "warning" in done.stderr and name in done.stderr else f"silent: {done.stderr}"
            self.case("unlisted, offline", name, "exit 0, warned", f"exit {done.returncode}, {warned}")
        for case, data in (("refusal", REFUSAL), ("pointer", POINTER), ("empty", b""), ("zeros", bytes(len(WEIGHTS)))):
            self.spoil("w.pth", data)
            for args in (("--filename", "w.pth"), ()):
                done = self.fvp("ensure", "org/model", *args, "--offline")
                told = "told" if "w.pth" in done.stderr else f"not told: {done.stderr}"
                self.case("unlisted, offline", f"{case} {' '.join(args)}", "exit 12, told", f"exit {done.returncode}, {told}")

    def test_a_list_that_may_not_be_read(self):
        tree = self.repo / "trees" / f"{self.commit}.json"
        tree.chmod(0o600)
        os.chmod(self.dir, 0o755)
        nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", self.command()]
        env = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
        for args in (("--offline",), ("--offline", "--filename", "w.pth"), ()):
            done = self.run_command([*nobody, "ensure", "org/model", *args], env)
            told = "told" if f"chmod a+r {tree}" in done.stderr else f"not told: {done.stderr}"
            self.case("closed list", " ".join(args) or "online", "exit 0, told", f"exit {done.returncode}, {told}")

    # --- one pin, one answer ---------------------------------------------------------------------

    def pins(self):
        digest = hashlib.sha256(WEIGHTS).hexdigest()
        entry = {"name": "w", "source": "org/model", "filename": "w.pth", "sha256": digest}
        commit = {**entry, "revision": self.commit}
        listed = {**commit, "files": [{"path": "w.pth", "size": len(WEIGHTS), "sha256": digest}]}
        return {"sha256": entry, "sha256 and commit": commit, "sha256, commit, size": {**commit, "size": len(WEIGHTS)}, "files": listed}

    def test_one_pin_has_one_answer(self):
        for case, entry in self.pins().items():
            manifest = self.manifest([entry])
            for mode in ("online", "receipt of another request", "offline", "frozen offline", "kept"):
                if mode.startswith("frozen") and case != "files":
                    continue
                shutil.rmtree(self.repo / ".fvprefetch", ignore_errors=True)
                self.spoil("w.pth", WEIGHTS)
                if mode == "receipt of another request":
                    self.assert_ok(self.fvp("ensure", "org/model", "--filename", "w.pth"))
                if mode == "kept":
                    self.assert_ok(self.fvp(manifest))
                    self.hub.reset()
                    done = self.fvp(manifest)
                    self.case("one pin", f"{case}, right and known", "exit 0, whole, 0 requests",
                              self.seen(done, self.snapshot / "w.pth", WEIGHTS) + f", {self.hub.stats()['requests']} requests")
                    continue
                self.spoil("w.pth", self.wrong("w.pth"))
                if "offline" in mode:
                    done = self.fvp(manifest, "--offline", *(["--frozen"] if "frozen" in mode else []))
                    self.case("one pin", f"{case}, {mode}", "exit 12", f"exit {done.returncode}")
                else:
                    self.check("one pin", f"{case}, {mode}", "w.pth", manifest)

    # --- --verify-foreign ------------------------------------------------------------------------

    def test_verify_foreign_hashes_once(self):
        self.spoil("w.safetensors", self.files["w.safetensors"][:-5] + b"wrong")
        done = self.fvp("ensure", "org/model")
        self.case("verify-foreign", "without it the size is all", "exit 0, other bytes", self.seen(done, self.snapshot / "w.safetensors", self.files["w.safetensors"]))
        done = self.fvp("ensure", "org/model", "--verify-foreign", "--offline")
        self.case("verify-foreign", "offline", "exit 12", f"exit {done.returncode}")
        self.check("verify-foreign", "a receipt of a look does not count", "w.safetensors", "ensure", "org/model", "--verify-foreign")
        blob = (self.snapshot / "w.safetensors").resolve()
        time = blob.stat().st_atime_ns
        os.utime(blob, ns=(0, blob.stat().st_mtime_ns))
        done, report = self.json("ensure", "org/model", "--verify-foreign")
        self.case("verify-foreign", "once", "exit 0, receipt, not read", f"exit {done.returncode}, {report['entries'][0]['verified_by']}, "
                  + ("not read" if blob.stat().st_atime_ns == 0 else f"read after {time}"))

    def test_the_environment_may_ask_for_it(self):
        self.spoil("w.pth", self.wrong("w.pth"))
        done = self.fvp("ensure", "org/model", env={"FVPREFETCH_VERIFY_FOREIGN": "1"})
        self.case("verify-foreign", "by the environment", "exit 0, whole", self.seen(done, self.snapshot / "w.pth", WEIGHTS))

    # --- the store that repositories share -------------------------------------------------------

    def share(self, name, data):
        payload = self.hf_cache / "blobs/ab" / ("ab" * 32)
        payload.parent.mkdir(parents=True)
        (self.hf_cache / "blobs/.huggingface-shared-blobs").write_bytes(b"1\n")
        payload.write_bytes(data)
        payload.chmod(0o444)
        blob = self.repo / "blobs" / os.path.basename(os.readlink(self.snapshot / name))
        blob.unlink()
        blob.symlink_to(os.path.relpath(payload, blob.parent))
        return payload

    def test_the_bad_copy_in_the_shared_store_is_told(self):
        payload = self.share("w.pth", self.wrong("w.pth"))
        manifest = self.manifest([{"name": "m", "source": "org/model"}])
        for args, code in (((), 8), (("--repair",), 0)):
            done = self.fvp("verify", manifest, *args)
            told = "told" if str(payload) in done.stderr and "hf cache prune" in done.stderr else f"not told: {done.stderr}"
            self.case("shared store", f"verify {' '.join(args)}", f"exit {code}, told", f"exit {done.returncode}, {told}")
        self.case("shared store", "repaired", True, (self.snapshot / "w.pth").read_bytes() == WEIGHTS)
        self.case("shared store", "not written to", True, payload.read_bytes() == self.wrong("w.pth"))


if __name__ == "__main__":
    cases.main()
