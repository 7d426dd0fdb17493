"""Words, lists and names that others choose: what servers say, what manifests and addresses are called, what a Hub
lists; and limits of the system that are smaller than a run would like.
"""

import fcntl
import json
import os
import pty
import random
import resource
import shutil
import signal
import socket
import stat
import subprocess
import time

import cases
import harness

COMMIT = "c" * 40
# What no terminal or log may get: control characters, as UTF-8 and as bare bytes, and what turns text around.
UNSHOWN = {
    "ESC": b"\x1b[31m",
    "DEL": b"\x7f",
    "CSI": "\u009b31m".encode(),
    "CSI, a bare byte": b"\x9b31m",
    "NEL": "\u0085".encode(),
    "override": "\u202e".encode(),
    "isolate": "\u2066".encode(),
    "mark": "\u200f\u061c".encode(),
    "separator": "\u2028\u2029".encode(),
    "no UTF-8": b"\xff\xc0\x80\xed\xa0\x80",
}


def is_shown(text):
    """Whether `text` (bytes) is for people: UTF-8, and nothing in it that UNSHOWN has."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return False
    bad = {*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
    return not any(ord(c) in bad - {0x0A, 0x09} for c in decoded)


class Words(cases.Cases):
    """`seen` is "shown" when all that a person reads is printable."""

    def run_raw(self, *args, env=None):
        argv = [self.command(), *map(str, args)]
        return subprocess.run(argv, env={**self.env, **(env or {})}, cwd=self.dir, capture_output=True, timeout=harness.PATIENCE)

    def told(self, done, code, with_stdout=True):
        text = done.stderr + (done.stdout if with_stdout else b"")
        self.assertEqual(done.returncode, code, text)
        return "shown" if is_shown(text) else f"raw: {text!r}"

    def hub_that_says(self, header=None, body=b"", status=404):
        """Latin-1 takes any bytes into a header."""
        headers = {} if header is None else {"X-Error-Message": (b"no " + header + b" here").decode("latin-1")}
        return self.site(lambda asked: cases.Answer(status, headers, body))

    def test_a_servers_header(self):
        for name, what in UNSHOWN.items():
            site = self.hub_that_says(what)
            done = self.run_raw("ensure", "org/model", env={"HF_ENDPOINT": site.url})
            self.case("foreign words", f"X-Error-Message with {name}", "shown", self.told(done, 5))

    def test_an_answer_of_the_api(self):
        for name, what in UNSHOWN.items():
            text = what.decode("utf-8", "replace")
            site = self.hub_that_says(body=json.dumps({"sha": "x" + text}).encode(), status=200)
            done = self.run_raw("ensure", "org/model", env={"HF_ENDPOINT": site.url})
            self.case("foreign words", f"`sha` with {name}", "shown", self.told(done, 8))
            files = [{"type": "file", "path": "a" + text, "size": -1, "oid": "a" * 40}]
            site = self.site(lambda asked, files=files: cases.Answer(200, {}, json.dumps(files).encode()))
            done = self.run_raw("ensure", "org/model", "--revision", COMMIT, env={"HF_ENDPOINT": site.url})
            self.case("foreign words", f"a path of a list with {name}", "shown", self.told(done, 8))

    def test_other_headers_of_a_file(self):
        word = b"x".join(UNSHOWN.values()).decode("latin-1")
        for header, status in {"Content-Encoding": 200, "ETag": 200, "Location": 302, "Content-Type": 403, "Retry-After": 403,
                               "WWW-Authenticate": 401, "Content-Range": 206}.items():  # fmt: skip
            site = self.site(lambda asked, s=status, h=header: cases.Answer(s, {h: word}, b"<html>"))
            done = self.run_raw("ensure", f"{site.url}/w.pth", "--retries", "0", "--verbose")
            seen = "shown" if is_shown(done.stderr + done.stdout) else f"raw: {done.stderr!r}"
            self.case("foreign words", header, "shown", seen)

    def test_what_holds_a_lock(self):
        data = self.hub.put("files/w.pth", b"\0weights" * 100)
        self.assert_ok(self.fvp("ensure", self.hub.file_url("w.pth")))
        (self.eval_cache / "models/w.pth").unlink()
        (lock,) = (self.eval_cache / ".fvprefetch/locks").glob("*.lock")
        holder = {"version": 1, "host": "h\n\u009b31m\u202e", "pid": 1, "job": "\u2028x", "since": "\u200fy"}
        (lock.parent / (lock.name + ".holder")).write_text(json.dumps(holder))
        with Held(lock):
            done = self.run_raw("ensure", self.hub.file_url("w.pth"), "--lock-timeout", "0s")
        self.assertEqual(done.returncode, 11, done.stderr)
        self.case("foreign words", "the holder of a lock", "shown", self.told(done, 11))
        self.assertEqual(len(data), 800)

    def test_where_another_file_came_from(self):
        self.hub.put("files/w.pth", b"\0weights" * 100)
        entries = [{"name": "w.pth", "source": self.hub.file_url("w.pth")}]
        self.assert_ok(self.fvp(self.manifest(entries)))
        for receipt in self.eval_cache.rglob("*.json"):
            told = json.loads(receipt.read_text())
            if "source_key" not in told:
                continue
            told.update(source="http://\u009b31m\u202e\nfvprefetch: error: x", source_key="0" * 64)
            receipt.write_text(json.dumps(told))
        done = self.run_raw(self.manifest(entries))
        self.case("foreign words", "`source` of a receipt", "shown", self.told(done, 0))
        self.assertNotIn(b"\nfvprefetch: error", done.stderr)

    def test_names_of_a_manifest_that_cannot_be_shown_are_refused(self):
        self.hub.put("files/w", b"weights")
        for name, what in UNSHOWN.items():
            text = what.decode("utf-8", "replace")
            if "\ufffd" in text:
                continue  # JSON cannot have it
            for field in ({"name": "a" + text}, {"name": "a", "dest": f"models/{text}b"}):
                done = self.run_raw(self.manifest([{"source": self.hub.file_url("w"), **field}]))
                self.case("foreign words", f"{[*field][-1]} with {name}", "shown", self.told(done, 2))

    def test_json_says_all_of_it_in_characters_that_can_be_shown(self):
        site = self.hub_that_says("\u009b31m\u202e\U000e0041".encode())
        done = self.run_raw("--json", self.manifest([{"name": "m", "source": "org/model"}]), env={"HF_ENDPOINT": site.url})
        self.case("foreign words", "--json", "shown", self.told(done, 5))
        self.assertIn("\\xc2\\x9b", json.loads(done.stdout)["error"]["message"])
        self.assertTrue(done.stdout.isascii())

    def test_a_terminal_gets_paths_that_it_can_show(self):
        """Paths are exact for scripts; a file that others put into the cache is told of on a terminal, too."""
        planted = self.eval_cache / "models" / ".\u202ex.00c0ffee.fvprefetch-part"
        planted.parent.mkdir(parents=True)
        planted.write_bytes(b"x")
        os.utime(planted, (0, 1_000_000_000))
        exact = self.run_raw("prune", "--dry-run")
        self.assertIn(str(planted).encode(), exact.stdout)
        main, side = pty.openpty()
        argv = [self.command(), "prune", "--dry-run"]
        subprocess.run(argv, env=self.env, cwd=self.dir, stdout=side, stderr=subprocess.DEVNULL, timeout=harness.PATIENCE)
        os.close(side)
        shown = os.read(main, 65536).replace(b"\r\n", b"\n")
        os.close(main)
        self.case("foreign words", "a path on a terminal", "shown", "shown" if is_shown(shown) else f"raw: {shown!r}")
        self.assertIn(b"fvprefetch-part", shown)


class Lines(cases.Cases):
    """Foreign words never begin a line of their own."""

    FAKE = "x\nfvprefetch: error: FAKE"

    def check(self, name, done, code):
        lines = (done.stderr + done.stdout).splitlines()
        forged = any(line.startswith("fvprefetch: error: FAKE") for line in lines)
        self.case("foreign lines", name, f"exit {code}, none", f"exit {done.returncode}, {'forged' if forged else 'none'}")

    def test_variables(self):
        for name in ("FVPREFETCH_LOCK", "FVPREFETCH_STAGE", "FVPREFETCH_PROGRESS", "FVPREFETCH_RETRIES"):
            self.check(name, self.fvp("doctor", env={name: self.FAKE}), 2)
        self.check("an option", self.fvp("ensure", "org/model", "--limit-rate", self.FAKE), 2)
        long = {"FASTVIDEO_EVAL_CACHE": "/" + self.FAKE * 200}
        self.check("a path that cannot be", self.fvp("ensure", self.hub.file_url("w"), env=long), 2)

    def test_names_in_a_cache(self):
        closed = self.eval_cache / "models" / self.FAKE
        closed.mkdir(parents=True)
        os.chmod(self.dir, 0o755)
        closed.chmod(0)
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", self.command(), "prune"]
        self.check("a folder that prune may not list", self.run_command(argv), 10)

    def test_a_receipt(self):
        self.hub.put("files/w.bin", b"\x80weights" * 10)
        manifest = self.manifest([{"name": "w.bin", "source": self.hub.file_url("w.bin")}])
        self.assert_ok(self.fvp(manifest))
        (receipt,) = (self.eval_cache / ".fvprefetch/receipts").iterdir()
        told = json.loads(receipt.read_text())
        told["files"][0]["sha256"] = self.FAKE
        receipt.write_text(json.dumps(told))
        self.check("a digest of a receipt", self.fvp("verify", manifest), 0)

    def test_mistakes_of_a_manifest_stand_each_on_a_line(self):
        done = self.fvp(self.manifest([{"name": "a", "source": 1}, {"name": "b", "source": 2}]))
        self.assertEqual(sum("/entries/" in line for line in done.stderr.splitlines()), 2, done.stderr)


class Outputs(cases.Cases):
    """`lock --output` to what is no regular file."""

    def setUp(self):
        super().setUp()
        self.hub.put("files/w.bin", b"\x80weights" * 10)
        self.path = self.manifest([{"name": "w.bin", "source": self.hub.file_url("w.bin")}])
        self.assert_ok(self.fvp(self.path))

    def lock(self, output, **kwargs):
        return self.fvp("lock", self.path, "--output", output, **kwargs)

    def seen_lock(self, done, text, kept):
        return f"exit {done.returncode}, {'a manifest' if 'sha256' in text else 'nothing'}, {'kept' if kept else 'replaced'}"

    def test_a_device(self):
        device = self.dir / "null"
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        done = self.lock(device)
        kept = stat.S_ISCHR(device.lstat().st_mode)
        self.case("lock --output", "a device", "exit 0, nothing, kept", self.seen_lock(done, "", kept))

    def test_a_fifo(self):
        fifo = self.dir / "fifo"
        os.mkfifo(fifo)
        with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE, text=True) as reader:
            try:
                done = self.lock(fifo)
                kept = stat.S_ISFIFO(fifo.lstat().st_mode)
                text = reader.communicate(timeout=10)[0] if kept else ""
            finally:
                reader.kill()
        self.case("lock --output", "a FIFO", "exit 0, a manifest, kept", self.seen_lock(done, text, kept))

    def test_a_socket(self):
        path = self.dir / "socket"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            done = self.lock(path)
        kept = stat.S_ISSOCK(path.lstat().st_mode)
        self.case("lock --output", "a socket", "exit 2, nothing, kept", self.seen_lock(done, "", kept))

    def test_names_of_descriptors(self):
        for name in ("/proc/self/fd/1", "/dev/fd/1"):
            link = self.dir / f"link-{len(name)}"
            link.symlink_to(name)
            done = self.lock(link)
            self.case("lock --output", f"a link to {name}", "exit 0, a manifest, kept", self.seen_lock(done, done.stdout, link.is_symlink()))
        with open(self.dir / "third", "w+") as third:
            done = self.lock(f"/dev/fd/{third.fileno()}", pass_fds=[third.fileno()])
            third.seek(0)
            self.case("lock --output", "a further descriptor", "exit 0, a manifest, kept", self.seen_lock(done, third.read(), True))

    def test_a_link_to_a_file(self):
        real = self.dir / "real.json"
        real.write_text("{}")
        real.chmod(0o640)
        link = self.dir / "link.json"
        link.symlink_to(real.name)
        done = self.lock(link)
        seen = self.seen_lock(done, real.read_text(), link.is_symlink()) + f", {stat.S_IMODE(real.stat().st_mode):o}"
        self.case("lock --output", "a link to a file", "exit 0, a manifest, kept, 640", seen)

    def test_a_folder_that_takes_no_files(self):
        done = self.lock("/proc/x")
        self.case("lock --output", "/proc/x", "exit 10", self.seen(done))
        self.assertNotIn("spelling", done.stderr)


class Once(cases.Cases):
    """What can be read once is read once."""

    def test_exec_and_a_manifest_from_a_pipe(self):
        self.hub.put("files/w.bin", b"\x80weights" * 10)
        path = self.manifest([{"name": "w.bin", "source": self.hub.file_url("w.bin")}])
        self.assert_ok(self.fvp(path))
        with open(path) as text:
            done = self.fvp("exec", "-", "--", "echo", "ran", stdin=text)
        self.case("read once", "exec -", "exit 0, ran", f"exit {done.returncode}, {done.stdout.strip()}")
        for verb, words in {"exec": ["--", "echo", "ran"], "env": []}.items():
            read, write = os.pipe()
            os.write(write, open(path, "rb").read())
            os.close(write)
            done = self.fvp(verb, f"/dev/fd/{read}", *words, pass_fds=[read])
            os.close(read)
            self.case("read once", f"{verb} <(...)", "exit 0", self.seen(done))

    def test_a_socket(self):
        path = self.dir / "socket"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            self.case("read once", "a manifest that is a socket", "exit 2", self.seen(self.fvp(path)))


class Gone(cases.Cases):
    """Folders that are not there any more, or take nothing. Nobody has misspelt anything."""

    def told(self, done, word):
        return f"exit {done.returncode}" + ("" if word in done.stderr else f", without {word}: {done.stderr[-300:]}") + (
            ", spelling" if "spelling" in done.stderr else "") + (", taken over" if "taken over" in done.stderr else "")  # fmt: skip

    def test_the_working_directory(self):
        self.hub.put("files/w.bin", b"\x80weights" * 10)
        path = self.manifest([{"name": "w.bin", "source": self.hub.file_url("w.bin")}])
        argv = ["sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh", self.command()]
        for words in (["env"], ["exec", path, "--", "true"], [path], ["ensure", self.hub.file_url("w.bin")]):
            done = self.run_command([*argv, *words], {"FASTVIDEO_EVAL_CACHE": "rel"})
            if "--cache-dir" not in words and words[0] in ("env", "exec"):
                self.case("gone", f"working directory, {words[0]}", "exit 10", self.told(done, "working directory"))
            done = self.run_command([*argv, *words[:2], "--cache-dir", "rel", *words[2:]])
            name = words[0] if words[0] != path else "fetch"
            self.case("gone", f"working directory, {name} --cache-dir", "exit 10", self.told(done, "working directory"))

    def test_a_cache_that_takes_no_files(self):
        self.hub.put("files/w.bin", b"\x80weights" * 10)
        done = self.fvp("ensure", self.hub.file_url("w.bin"), "--cache-dir", "/proc/x")
        self.case("gone", "/proc/x", "exit 10", self.told(done, "/proc"))

    def test_while_it_is_written(self):
        data = random.Random(5).randbytes(200_000)
        for name, gone in {
            "the cache": lambda: shutil.rmtree(self.eval_cache),
            "its models": lambda: shutil.rmtree(self.eval_cache / "models"),
            "the partial": lambda: [p.unlink() for p in self.eval_cache.rglob("*.fvprefetch-part")],
        }.items():
            def answer(asked, gone=gone):
                if asked.range() and asked.range()[0]:
                    first = asked.range()[0]
                    told = {"ETag": '"1"', "Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
                    return cases.Answer(206, told, data[first:])
                first = cases.Answer(200, {"ETag": '"1"'}, data, cut=100_000)
                first.sent = lambda: (time.sleep(0.3), gone())
                return first

            site = self.site(answer)
            done = self.fvp("ensure", site.url + "/w.bin", "--connections", "1")
            self.case("gone", f"{name}, while it is written", "exit 10", self.told(done, "gone"))


class Held:
    """flock on `path` by this process."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.file = open(self.path, "r+")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()


class OneNameForTwo(cases.Cases):
    """Two addresses with one last part: the name was the tool's choice."""

    def setUp(self):
        super().setUp()
        self.server = self.site(lambda asked: cases.Answer(200, {}, b"\x80bytes of " + asked.path.encode() + b" " * 100))

    def ensure(self, path, *more):
        self.done = self.fvp("ensure", self.server.url + path, *more)
        if self.done.returncode != 0:
            return f"exit {self.done.returncode}"
        data = open(self.done.stdout.strip(), "rb").read().rstrip()
        return "its own" if data == b"\x80bytes of " + path.split("#")[0].encode() else "another's"

    def test_another_source_is_never_taken_for_it(self):
        for first, second in {
            "/uc?export=download&id=A": "/uc?export=download&id=B",
            "/s/one/download": "/s/two/download",
            "/releases/download/v1/w.pth": "/releases/download/v2/w.pth",
            "/plain": "/plain?x",
        }.items():
            self.assertEqual(self.ensure(first), "its own")
            self.case("one name for two sources", f"{first}, then {second}", "exit 2", self.ensure(second))
            self.assertIn("--name", self.done.stderr)
            self.assertIn("query" if first.split("?")[0] == second.split("?")[0] else first, self.done.stderr)
            self.case("one name for two sources", f"{first} once more", "its own", self.ensure(first))
            named = self.ensure(second, "--name", f"{len(second)}-{second.count('/')}.bin")
            self.case("one name for two sources", f"{second} with --name", "its own", named)

    def test_refresh_puts_it_in_the_others_place(self):
        self.assertEqual(self.ensure("/f?a"), "its own")
        self.case("one name for two sources", "--refresh", "its own", self.ensure("/f?b", "--refresh"))

    def test_what_is_never_sent_makes_no_other_source(self):
        self.assertEqual(self.ensure("/g#a"), "its own")
        self.case("one name for two sources", "another fragment", "its own", self.ensure("/g#b"))

    def test_the_name_of_a_plain_address_stays_what_it_is(self):
        self.assertEqual(self.ensure("/deep/w.pth"), "its own")
        self.assertEqual(self.done.stdout.strip(), str(self.eval_cache / "models/w.pth"))
        self.assertEqual(self.ensure("/uc?id=A"), "its own")
        self.assertEqual(self.done.stdout.strip(), str(self.eval_cache / "models/uc"))

    def test_a_name_that_the_user_chose_is_the_users(self):
        self.assertEqual(self.ensure("/a", "--name", "mine"), "its own")
        self.case("one name for two sources", "--name of another", "another's", self.ensure("/b", "--name", "mine"))
        self.assertIn("came from another source", self.done.stderr)

    def test_a_file_that_somebody_else_put_there_is_taken(self):
        (self.eval_cache / "models").mkdir(parents=True)
        (self.eval_cache / "models/w").write_bytes(b"\x80bytes of /w")
        self.case("one name for two sources", "a file without a receipt", "its own", self.ensure("/w"))


class Home(cases.Cases):
    """"~" of an option that a shell leaves alone."""

    def test_it_is_expanded_wherever_a_path_is_given(self):
        self.hub.put("files/w", b"weights")
        home = self.dir / "home"
        url = self.hub.file_url("w")
        plain = {k: v for k, v in self.env.items() if k != "FASTVIDEO_EVAL_CACHE"}
        for name, args, env, where in (
            ("--cache-dir=~/x", ["--cache-dir=~/x"], {}, home / "x/models/w"),
            ("FVPREFETCH_CACHE_DIR", [], {"FVPREFETCH_CACHE_DIR": "~/y"}, home / "y/models/w"),
            ("FASTVIDEO_CACHE_ROOT", [], {"FASTVIDEO_CACHE_ROOT": "~/z"}, home / "z/eval/models/w"),
        ):
            done = self.run_with(plain, "ensure", url, *args, env=env)
            self.assert_ok(done)
            self.case("~", name, str(where), done.stdout.strip())
            self.assertTrue(where.exists())
        self.assertFalse((self.dir / "~").exists())

    def run_with(self, base, *args, env):
        self.env = {**base}
        return self.fvp(*args, env=env)

    def test_in_the_other_path_options(self):
        home = self.dir / "home"
        self.hub.put("files/w", b"weights")
        manifest = self.manifest([{"name": "w", "source": self.hub.file_url("w")}])
        self.assert_ok(self.fvp(manifest))
        self.assert_ok(self.fvp("lock", manifest, "--output=~/l.json"))
        self.case("~", "--output=~/l.json", True, (home / "l.json").exists())
        done = self.fvp("env", "--hf-cache-dir=~/h")
        self.case("~", "--hf-cache-dir=~/h", True, str(home / "h") in done.stdout)
        done = self.fvp(manifest, "--stage=~/stage")
        self.assert_ok(done)
        self.case("~", "--stage=~/stage", True, (home / "stage/eval/models/w").exists())
        done = self.fvp(manifest, "--cache-dir", self.dir / "other", "--extra-cache=/nowhere:~/stage", "--offline")
        self.case("~", "--extra-cache=/nowhere:~/stage", 0, done.returncode)

    def test_a_user_that_there_is_not(self):
        done = self.fvp("env", "--cache-dir=~no-such-user-here/x")
        self.case("~", "~no-such-user-here/x", "exit 2", self.seen(done))

    def test_fastvideos_own_variable_is_taken_as_it_is(self):
        done = self.fvp("env", env={"FASTVIDEO_EVAL_CACHE": "~/x"})
        self.case("~", "FASTVIDEO_EVAL_CACHE", True, f"{self.dir}/~/x" in done.stdout)


class Lists(cases.Cases):
    """Lists of files that no Hub sends and no cache can hold."""

    def list(self, *files):
        asked = []

        def answer(request):
            asked.append(request.path)
            if "/tree/" in request.path:
                return cases.Answer(200, {}, json.dumps([{"type": "file", "oid": "a" * 40, "size": 1, **f} for f in files]).encode())
            return cases.Answer(200, {}, b"x")

        site = self.site(answer)
        done = self.fvp("ensure", "org/model", "--revision", COMMIT, env={"HF_ENDPOINT": site.url})
        self.said = done.stderr
        bodies = [path for path in asked if "/resolve/" in path]
        left = [p for p in self.hf_cache.rglob("*") if p.is_file() and "snapshots" in p.parts] if self.hf_cache.exists() else []
        return f"exit {done.returncode}, {len(bodies)} files asked for, {len(left)} published"

    def test_they_are_refused_before_a_byte(self):
        lfs = {"oid": "b" * 64}
        for name, files, word in (
            ("a file that is a folder", [{"path": "a"}, {"path": "a/b", "oid": "b" * 40}], "`a/b`"),
            ("the same, others between", [{"path": "a"}, {"path": "a-x", "oid": "c" * 40}, {"path": "a/b/c", "oid": "b" * 40}], "`a/b/c`"),
            ("one LFS digest, two sizes", [{"path": "x", "lfs": {**lfs, "size": 5}}, {"path": "y", "lfs": {**lfs, "size": 6}}], "two sizes"),
            ("one git id, two sizes", [{"path": "x", "size": 5}, {"path": "y", "size": 6}], "two sizes"),
            ("sizes that overflow", [{"path": n, "size": 2**63 - 1, "oid": n * 40} for n in "abc"], "more bytes"),
            ("sizes beyond 2^63", [{"path": "a", "size": 2**63}], "size"),
            ("sizes beyond 2^64", [{"path": "a", "size": 2**70}], "size"),
            ("a negative size", [{"path": "a", "size": -1}], "(-1)"),
            ("a size in words", [{"path": "a", "size": "many"}], "size"),
            ("a fraction of a byte", [{"path": "a", "size": 1.5}], "size"),
            ("no size", [{"path": "a", "size": None}], "has no size"),
            ("a negative LFS size", [{"path": "a", "lfs": {**lfs, "size": -1}}], "(-1)"),
        ):
            self.case("a list of the Hub", name, "exit 8, 0 files asked for, 0 published", self.list(*files))
            self.assertIn(word, self.said)
            self.assertNotIn("it was not made by fvprefetch", self.said)

    def test_two_files_of_one_digest_and_size_are_usual(self):
        data = b"same"
        oid = harness.sha256(data)

        def answer(request):
            if "/tree/" in request.path:
                lfs = {"oid": oid, "size": len(data)}
                return cases.Answer(200, {}, json.dumps([{"type": "file", "path": p, "size": 4, "oid": "a" * 40, "lfs": lfs} for p in "xy"]).encode())
            return cases.Answer(200, {"ETag": f'"{oid}"'}, data)

        site = self.site(answer)
        done = self.fvp("ensure", "org/model", "--revision", COMMIT, env={"HF_ENDPOINT": site.url})
        self.case("a list of the Hub", "one digest twice", "exit 0", self.seen(done))

    def test_a_manifest_that_pins_such_a_list(self):
        pinned = {"name": "m", "source": "org/model", "revision": COMMIT}
        for name, files in {
            "a file that is a folder": [{"path": "a", "size": 1, "git_sha1": "a" * 40}, {"path": "a/b", "size": 1, "git_sha1": "b" * 40}],
            "one digest, two sizes": [{"path": "a", "size": 1, "sha256": "a" * 64}, {"path": "b", "size": 2, "sha256": "A" * 64}],
            "sizes that overflow": [{"path": n, "size": 2**63 - 1, "sha256": n * 64} for n in "abc"],
        }.items():
            done = self.fvp(self.manifest([{**pinned, "files": files}]))
            self.case("a list in a manifest", name, "exit 2", self.seen(done))
            self.assertIn("/entries/0/files", done.stderr)

    def test_urls_whose_sizes_overflow_do_not_fit(self):
        entries = [{"name": f"u{i}", "source": self.hub.file_url(f"u{i}"), "size": 2**63 - 1} for i in range(3)]
        self.case("a list in a manifest", "3 x 2^63 bytes of URLs", "exit 9", self.seen(self.fvp(self.manifest(entries))))

    def test_a_list_in_the_cache(self):
        """Whoever may write to the cache may have put it there: the Hub is asked."""
        folder = self.hf_cache / "models--org--model/trees"
        folder.mkdir(parents=True)
        files = {"a": {"size": 1, "oid": "a" * 40}, "a/b": {"size": 1, "oid": "b" * 40}}
        (folder / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": files}))
        done = self.fvp("ensure", "org/model", "--revision", COMMIT, "--offline")
        self.case("a list in the cache", "a file that is a folder", "exit 12", self.seen(done))


class Addresses(cases.Cases):
    def told(self, source, code, *words, command="ensure", **entry):
        done = self.fvp(self.manifest([{"name": "x", "source": source, **entry}])) if command == "manifest" else self.fvp("ensure", source)
        missing = [word for word in words if word not in done.stderr]
        return f"exit {done.returncode}" + (f", without {missing}" if missing else "")

    def test_a_blank_is_written_20(self):
        for command in ("ensure", "manifest"):
            seen = self.told("https://host/a b.pth", 2, "%20", command=command)
            self.case("addresses", f"a blank, {command}", "exit 2", seen)
        seen = self.told("https://host/a.pth", 2, "%20", command="manifest", mirrors=["https://host/b c"])
        self.case("addresses", "a blank in a mirror", "exit 2", seen)

    def test_the_page_of_a_file(self):
        page = self.site(lambda asked: cases.Answer(200, {"Content-Type": "text/html"}, b"<!doctype html><title>w</title>"))
        for path in ("/org/model/blob/main/w.pth", "/o/r/blob/main/deep/w.bin", "/g/p/-/blob/main/w.ckpt"):
            right = path.replace("/blob/", "/raw/" if "/-/" in path else "/resolve/")
            self.case("addresses", f"page at {path}", "exit 8", self.told(page.url + path, 8, page.url + right))
        seen = self.told(page.url + "/login/w.pth", 8)
        self.case("addresses", "page elsewhere", "exit 8", seen)

    def test_the_page_of_a_repository(self):
        for source, words in {
            "https://huggingface.co/org/model": ["`org/model`"],
            "https://huggingface.co/org/model/": ["`org/model`"],
            "https://hf.co/org/model/tree/main": ["`org/model`", "main"],
            "https://huggingface.co/datasets/org/data": ["`org/data`", "repo_type", "dataset"],
        }.items():
            self.case("addresses", source, "exit 2", self.told(source, 2, *words))
        for source, words in {
            "hf://org/model": ["name it `org/model`"],
            "hf://org/model@v1/w.pth": ["name it `org/model`", "w.pth", "v1"],
            "hf://datasets/org/data": ["name it `org/data`", "repo_type"],
        }.items():
            self.case("addresses", source, "exit 5", self.told(source, 5, *words))

    def test_the_page_of_a_repository_of_a_mirror(self):
        page = self.site(lambda asked: cases.Answer(200, {}, b"<!doctype html><title>model</title>"))
        self.env["HF_ENDPOINT"] = page.url
        seen = self.told(page.url + "/org/model", 8, "name it `org/model`")
        self.case("addresses", "page of a repository, HF_ENDPOINT", "exit 8", seen)

    def test_a_repository_that_is_not_there_may_be_of_another_type(self):
        seen = self.told("org/absent", 4, "repo_type")  # the Hub says 401 to who sends no token
        self.case("addresses", "RepoNotFound", "exit 4", seen)


class Inodes(cases.Cases):
    def disk(self, inodes):
        self.hf_cache.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"nr_inodes={inodes},size=64m", "tmpfs", self.hf_cache], check=True)
        self.addCleanup(subprocess.run, ["umount", self.hf_cache], check=True)

    def repository(self, files):
        for i in range(files):
            self.hub.put(f"models/org/many/{i}.json", b"%d" % i)

    def test_more_files_than_inodes_are_not_begun(self):
        self.repository(80)
        self.disk(20)
        for inodes in (20, 120):  # with a link each there are 160
            subprocess.run(["mount", "-o", f"remount,nr_inodes={inodes}", self.hf_cache], check=True)
            self.hub.reset()
            done = self.fvp("ensure", "org/many")
            asked = [p for p in self.hub.stats()["by_path"] if "/resolve/" in p]
            self.case("inodes", f"80 files, {inodes} inodes", "exit 9, 0 asked for", f"exit {done.returncode}, {len(asked)} asked for")
            self.assertIn("inodes", done.stderr)

    def test_those_that_run_out_on_the_way_are_named(self):
        self.repository(30)
        self.disk(40)
        done = self.fvp("ensure", "org/many", "--no-space-check")
        self.case("inodes", "run out on the way", "exit 9", self.seen(done))
        self.assertIn("inode", done.stderr)
        self.assertIn("df -i", done.stderr)
        subprocess.run(["mount", "-o", "remount,nr_inodes=1000", self.hf_cache], check=True)
        self.case("inodes", "the next run goes on", "exit 0", self.seen(self.fvp("ensure", "org/many")))

    def test_few_bytes_are_told_as_bytes(self):
        self.hub.put("files/large", random.Random(1).randbytes(1 << 20))
        self.eval_cache.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", self.eval_cache], check=True)
        self.addCleanup(subprocess.run, ["umount", self.eval_cache], check=True)
        done = self.fvp("ensure", self.hub.file_url("large"), "--no-space-check")
        self.case("inodes", "few bytes", "exit 9", self.seen(done))
        self.assertNotIn("inode", done.stderr)


class MayNotLook(cases.Cases):
    """A cache of which this user may not list a part."""

    def test_prune_removes_what_it_may_and_says_where_it_could_not_look(self):
        nobody = 65534
        caches = {"eval cache": self.eval_cache, "models of it": self.eval_cache / "models", "its own folder": self.eval_cache / ".fvprefetch",
                  "Hub cache": self.hf_cache, "blobs of it": self.hf_cache / "models--org--m/blobs"}  # fmt: skip
        os.chmod(self.dir, 0o777)
        for name, closed in caches.items():
            for folder in (self.eval_cache / "models", self.eval_cache / ".fvprefetch/journals", self.hf_cache / "models--org--m/blobs", self.eval_cache / "torch"):
                folder.mkdir(parents=True, exist_ok=True)
            gone = self.eval_cache / "torch/.w.00c0ffee.fvprefetch-part"
            gone.write_bytes(b"x")
            os.utime(gone, (0, 1_000_000_000))
            for path in (self.eval_cache, self.hf_cache, *self.eval_cache.rglob("*"), *self.hf_cache.rglob("*")):
                os.chown(path, nobody, nobody)
            os.chmod(closed, 0o300 if closed in (self.eval_cache, self.hf_cache) else 0)
            argv = ["setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups", self.command(), "prune"]
            done = self.run_command(argv)
            os.chmod(closed, 0o755)
            self.case("may not look", name, "exit 10", self.seen(done))
            self.assertIn(str(closed), done.stderr)
            if closed not in (self.eval_cache, self.eval_cache / ".fvprefetch"):  # there: whose it is
                self.case("may not look", f"{name}: the rest is removed", False, gone.exists())


    def as_nobody(self, *args):
        return self.run_command(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", self.command(), *map(str, args)])

    def test_prune_with_a_manifest(self):
        os.chmod(self.dir, 0o755)
        path = self.manifest([{"name": "m", "source": "org/m"}])
        (self.hf_cache / "models--org--m/blobs").mkdir(parents=True)
        for mode in (0, 0o700, 0o744):
            self.hf_cache.chmod(mode)
            done = self.as_nobody("prune", path)
            self.case("may not look", f"prune MANIFEST, Hub cache {mode:o}", "exit 10", self.seen(done))

    def test_caches_that_cannot_be(self):
        (self.dir / "file").write_text("")
        path = self.manifest([{"name": "m", "source": "org/m"}])
        for name, cache in {"a file": self.dir / "file", "below a file": self.dir / "file/x", "a long name": "/" + "x" * 300}.items():
            for option in ("--cache-dir", "--hf-cache-dir"):
                for words in ([], [path]):
                    done = self.fvp("prune", *words, option, cache)
                    self.case("may not look", f"prune {'MANIFEST ' if words else ''}{option}: {name}", "exit 2", self.seen(done))


class Limits(cases.Cases):
    """A limit that is too small has a message of its own, and no run ends by a signal or with 1."""

    def entries(self, size=3_000_000):
        self.hub.put("files/w", os.urandom(size))
        return self.manifest([{"name": "w", "source": self.hub.file_url("w")}])

    def limited(self, which, value, *args, ignored=False, **kwargs):
        def begin():
            if ignored:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(which, (value, value))

        return self.fvp(*args, preexec_fn=begin, **kwargs)

    def test_file_sizes(self):
        manifest = self.entries()
        for ignored in (False, True):
            done = self.limited(resource.RLIMIT_FSIZE, 1_000_000, manifest, ignored=ignored)
            self.case("limits", f"ulimit -f, ignored: {ignored}", "exit 9", self.seen(done))
            self.assertIn("ulimit -f", done.stderr)
        self.assert_ok(self.fvp(manifest))

    def test_file_sizes_of_small_files(self):
        """Receipts, journals and locks are cut as well."""
        for limit in (0, 10, 200):
            done = self.limited(resource.RLIMIT_FSIZE, limit, self.entries(1000), "--cache-dir", self.dir / f"c{limit}")
            self.case("limits", f"ulimit -f of {limit} bytes", True, done.returncode in (0, 9))
            if done.returncode:
                self.assertIn("ulimit -f", done.stderr)

    def test_results_that_are_longer_than_a_file_may_be(self):
        manifest = self.entries(10)
        self.assert_ok(self.fvp(manifest))
        with open(self.dir / "out", "w") as out:
            def begin():
                resource.setrlimit(resource.RLIMIT_FSIZE, (5, 5))

            done = subprocess.run([self.command(), manifest], env=self.env, cwd=self.dir, stdout=out, stderr=subprocess.PIPE,
                                  text=True, preexec_fn=begin, timeout=harness.PATIENCE)  # fmt: skip
        self.case("limits", "ulimit -f for standard output", "exit 9", f"exit {done.returncode}")

    def test_exec_gives_the_program_its_signals_back(self):
        done = self.fvp("exec", self.manifest([{"name": "x", "source": "/"}]), "--", "grep", "SigIgn", "/proc/self/status")
        self.assert_ok(done)
        ignored = int(done.stdout.split()[1], 16)
        self.case("limits", "exec, SIGXFSZ ignored", 0, ignored & 1 << 24)

    def test_open_files(self):
        manifest = self.entries()
        ends = {}
        for most in range(4, 40):
            done = self.limited(resource.RLIMIT_NOFILE, most, manifest, "--cache-dir", self.dir / f"n{most}")
            ends[most] = done.returncode
            if done.returncode != 0 and "ulimit -n" not in done.stderr and done.returncode != 127:
                ends[most] = f"{done.returncode}: {done.stderr}"
        wrong = {most: end for most, end in ends.items() if end not in (0, 9, 127)}  # 127: the loader itself
        self.case("limits", "ulimit -n of 4 to 39", {}, wrong)

    def test_memory(self):
        path = self.entries(1000)
        wrong = {}
        for most in range(60, 200, 10):
            for words in ([path], ["status", path], ["plan", path], ["doctor"]):
                done = self.limited(resource.RLIMIT_AS, most << 20, *words)
                if done.returncode not in (0, 9, 127) or "report it" in done.stderr or (done.returncode == 9 and "ulimit" not in done.stderr):
                    wrong[most, words[0]] = f"{done.returncode}: {done.stderr}"
        self.case("limits", "ulimit -v of 60 to 190 MiB", {}, wrong)

    def test_doctor_and_file_sizes(self):
        for limit in (0, 1000):
            done = self.limited(resource.RLIMIT_FSIZE, limit, "doctor")
            self.case("limits", f"doctor, ulimit -f of {limit} bytes", "exit 9, told", self.seen(done) + (", told" if "ulimit -f" in done.stderr else ""))

    def test_doctor_without_threads(self):
        os.chmod(self.dir, 0o777)
        for cache in (self.eval_cache, self.hf_cache):
            cache.mkdir()
            cache.chmod(0o777)
        wrong = {}
        for most in (1, 2, 3):
            done = self.run_command(["prlimit", f"--nproc={most}", "setpriv", "--reuid=64322", "--regid=64322", "--clear-groups", self.command(), "doctor"])
            if done.returncode not in (0, 9) or "does not answer" in done.stderr:
                wrong[most] = f"{done.returncode}: {done.stderr}"
        self.case("limits", "doctor, ulimit -u of 1 to 3", {}, wrong)

    def test_processes(self):
        """RLIMIT_NPROC does not hold for root."""
        manifest = self.entries(1000)
        os.chmod(self.dir, 0o777)
        os.chmod(manifest, 0o644)
        nobody = 64321  # who runs nothing else here
        ends = {}
        for most in range(1, 8):
            cache = self.dir / f"p{most}"
            cache.mkdir()
            os.chown(cache, nobody, nobody)
            argv = ["prlimit", f"--nproc={most}", "setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups",
                    self.command(), manifest, "--cache-dir", cache]  # fmt: skip
            done = self.run_command(argv, {"TMPDIR": str(cache)})
            ends[most] = done.returncode
            if done.returncode != 0 and "ulimit -u" not in done.stderr:
                ends[most] = f"{done.returncode}: {done.stderr}"
        self.case("limits", "ulimit -u of 1 to 7", {}, {most: end for most, end in ends.items() if end not in (0, 9)})


if __name__ == "__main__":
    cases.main()
