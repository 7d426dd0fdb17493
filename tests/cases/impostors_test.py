"""What comes from servers in place of a checkpoint, with status 200: pages, errors in words, pointers, nothing; and what
looks like one of these and is right."""

import gzip
import hashlib
import io
import json
import os
import pickle
import tarfile
import zipfile

import cases

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 1000\n"
S3_ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
PAGE = b"<!DOCTYPE html><html><body>Log in</body></html>"
HTML = "text/html; charset=utf-8"
BINARY = "application/octet-stream"

# name, Content-Type, body, a word of the message
IMPOSTORS = [
    ("page after a comment", HTML, b"<!-- x --><html>", "HTML"),
    ("page that begins with head", HTML, b"<head><title>Log in</title></head>", "HTML"),
    ("page that begins with script", HTML, b"<script>location.href='/login'</script>", "HTML"),
    ("page that begins with meta", HTML, b"<meta http-equiv='refresh' content='0; url=/login'>", "HTML"),
    ("page that begins with body", HTML, b"<body>Log in</body>", "HTML"),
    ("page called bytes", BINARY, PAGE, "HTML"),
    ("page without a type", None, b"\n\n  " + PAGE, "HTML"),
    ("page behind a byte order mark", HTML, b"\xef\xbb\xbf" + PAGE, "HTML"),
    ("XHTML", "application/xhtml+xml", b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "x">\n<html xmlns="y">', "HTML"),
    ("UTF-16 with a mark", HTML, PAGE.decode().encode("utf-16"), "HTML"),
    ("UTF-16 without a mark", HTML, PAGE.decode().encode("utf-16-le"), "HTML"),
    ("UTF-16 of the other order", HTML, PAGE.decode().encode("utf-16-be"), "HTML"),
    ("UTF-32", HTML, PAGE.decode().encode("utf-32"), "HTML"),
    ("Latin-1", "text/html; charset=latin-1", ("<html><p>" + "é à " * 200).encode("latin-1"), "HTML"),
    ("Shift-JIS", "text/html", ("<html><title>認証</title>" + "<p>ログイン</p>" * 100).encode("shift-jis"), "HTML"),
    ("long page", HTML, PAGE + b"<p>terms</p>" * 100_000, "HTML"),
    ("page that is only a comment so far", HTML, b"<!-- " + b"licence " * 400 + b"--><html>", "HTML"),
    ("error of S3", "application/xml", S3_ERROR, "AccessDenied"),
    ("error of S3 called bytes", BINARY, S3_ERROR, "object store"),
    ("error as JSON", "application/json", b'{"error": "Repository not found"}', "Repository not found"),
    ("list as JSON", "application/json", b"[]", "JSON"),
    ("rate limit in words", "text/plain", b"Rate limit exceeded", "Rate limit exceeded"),
    ("not found in words", "text/plain", b"Not found\n", "Not found"),
    ("one word", None, b"Forbidden", "Forbidden"),
    ("words in Chinese", "text/plain", "请先登录".encode(), "plain text"),
    ("a link that git checked out as text", BINARY, b"../../blobs/" + b"0" * 64, "plain text"),
    ("pointer of git-annex", BINARY, b"/annex/objects/SHA256E-s1000--" + b"0" * 64 + b".pth\n", "plain text"),
    ("pointer of DVC", BINARY, b"outs:\n- md5: 0123456789abcdef\n  path: w.pth\n", "plain text"),
    ("pointer of Git LFS", "text/plain", POINTER, "LFS"),
    ("pointer of Git LFS behind a mark", BINARY, b"\xef\xbb\xbf" + POINTER.replace(b"\n", b"\r\n"), "LFS"),
    ("control characters in the words", "text/plain", b"\x1b[31mred\x1b[0m words", "?[31mred"),
    ("page and a NUL", HTML, PAGE + b"\0", "HTML"),
    ("page in room for more", BINARY, PAGE + bytes(5000), "HTML"),
    ("page with control characters", HTML, b"<html>\x01</html>\x08", "HTML"),
    ("page and a NUL behind its doctype", None, b"<!DOCTYPE html>\0<html>", "HTML"),
    ("words and a NUL", BINARY, b"Access denied\0", "Access denied"),
    ("words and Ctrl-Z", BINARY, b"Access denied\r\n\x1a", "Access denied"),
    ("words with a backspace", BINARY, b"Access denied\x08.", "Access denied"),
    ("JSON and a NUL", "application/json", b'{"error": "x"}\0', "JSON"),
    ("error of S3 and a NUL", "application/xml", S3_ERROR + b"\0", "AccessDenied"),
    ("pointer in room for more", BINARY, POINTER + bytes(3000), "LFS"),
    ("short page in Latin-1", "text/html; charset=latin-1", "<html>Zugriff für Sie gesperrt</html>".encode("latin-1"), "HTML"),
    ("short words in Latin-1", BINARY, "Accès refusé".encode("latin-1"), "plain text"),
    ("quotes of cp1252", BINARY, b"You don\x92t have access", "plain text"),
    ("long page in cp1251", BINARY, ("<html><body>" + "Доступ запрещён " * 60).encode("cp1251"), "HTML"),
    ("long words in cp1251", BINARY, ("Доступ запрещён для вас, войдите. " * 60).encode("cp1251"), "plain text"),
    ("words in KOI8-R", "text/plain; charset=koi8-r", "Доступ запрещён".encode("koi8-r"), "plain text"),
    ("words in GBK", "text/plain; charset=gbk", "请先登录".encode("gbk"), "plain text"),
    ("words in Big5", "text/plain", "請先登錄".encode("big5"), "plain text"),
    ("words in EUC-KR", "text/plain", "로그인".encode("euc-kr"), "plain text"),
    ("words in UTF-16 without a mark", "text/plain; charset=utf-16le", "请先登录".encode("utf-16-le"), "plain text"),
    ("one word in UTF-16", BINARY, "Denied".encode("utf-16-le"), "Denied"),
    ("short page in Shift-JIS", BINARY, "<html>ログイン</html>".encode("shift-jis"), "HTML"),
    ("short page in ISO-2022-KR", "text/html", "<html>로그인</html>".encode("iso-2022-kr"), "HTML"),
    ("JSON in Latin-1", BINARY, '{"error": "Accès refusé"}'.encode("latin-1"), "JSON"),
    ("XML in Latin-1", BINARY, "<?xml version='1.0'?><a>refusé</a>".encode("latin-1"), "XML"),
    ("nothing", BINARY, b"", "empty"),
]

SUFFIXES = [".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".onnx", ".npz", ".npy", ".gguf", ".h5", ".tar", ".tgz", ".tar.gz", ".zip", ".PTH",
            ".ftz", ".t7", ".params", ".pdiparams", ".pdmodel", ".pte", ".mnn", ".rknn", ".om", ".sft", ".distcp", ".task", ".litertlm", ".llamafile",
            ".lora", ".mpk", ".feather", ".tfrecord", ".lzma", ".Z", ".gif", ".webp", ".mkv", ".mov", ".mp3", ".ogg", ".plan",
            ".ckpt.data-00000-of-00001", ".ckpt.index"]


def archive():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    return data.getvalue()


class Impostors(cases.Cases):
    def serve(self, body, content_type=BINARY):
        headers = {} if content_type is None else {"Content-Type": content_type}
        return self.site(lambda asked: cases.Answer(200, headers, body)).url

    def ensure(self, url, name, *options):
        done = self.fvp("ensure", url, "--name", name, *options)
        return done, self.eval_cache / "models" / name

    def refused(self, kind, case, url, name, word, *options):
        done, path = self.ensure(url, name, *options)
        told = "told" if word in done.stderr and "hint:" in done.stderr else f"not told: {done.stderr}"
        there = "published" if path.exists() else "nothing published"
        self.case(kind, case, "exit 8, told, nothing published", f"exit {done.returncode}, {told}, {there}")
        self.assertNotIn("\x1b", done.stderr)

    def taken(self, kind, case, url, name, body, *options):
        done, path = self.ensure(url, name, *options)
        self.case(kind, case, "exit 0, whole", self.seen(done, path, body))

    def test_text_where_weights_are_expected(self):
        self.all_refused("no checkpoint", [(case, f"{i}.pth", kind, body, word) for i, (case, kind, body, word) in enumerate(IMPOSTORS)])

    def test_whatever_the_suffix(self):
        self.all_refused("suffix", [(suffix, "w" + suffix, "text/plain", b"Not found", "Not found") for suffix in SUFFIXES])
        self.refused("suffix", "of the address", self.serve(b"Not found") + "/w.pth?download=1", "w", "Not found")

    def test_what_is_compressed_is_looked_into(self):
        rows = []
        for i, suffix in enumerate((".gz", ".tgz", ".tar.gz", ".pth", ".pth.gz")):
            for case, body, word in (("page", PAGE, "gzip of an HTML page"), ("error of S3", S3_ERROR, "AccessDenied"), ("JSON", b'{"error": "no"}', "gzip of JSON")):
                rows.append((f"{case} as {suffix}", f"{i}{case[0]}{suffix}", "text/html", gzip.compress(body), word))
        self.all_refused("compressed", rows)
        url = self.site(lambda asked: cases.Answer(200, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, gzip.compress(PAGE))).url
        self.refused("compressed", "a page that is labelled", url + "/w.tar.gz", "label.tar.gz", "gzip of an HTML page")
        for name, body in (("vocab.json.gz", b'{"a": 1}'), ("words.txt.gz", b"words"), ("w.pth.gz", b"\x80\x02" + os.urandom(5000))):
            self.taken("compressed", name, self.serve(gzip.compress(body)) + "/" + name, name, gzip.compress(body))

    def all_refused(self, kind, rows):
        """Together, since each is asked for once more after a moment."""
        answers = {f"/{number}": row for number, row in enumerate(rows)}

        def answer(asked):
            _, _, content_type, body, _ = answers[asked.path]
            return cases.Answer(200, {} if content_type is None else {"Content-Type": content_type}, body)

        url = self.site(answer).url
        entries = [{"name": row[1], "source": f"{url}/{number}"} for number, row in enumerate(rows)]
        done = self.fvp(self.manifest(entries), "--keep-going", "--json", "--max-active", "32")
        self.assertEqual(done.returncode, 8, done.stderr)
        told = {entry["name"]: entry for entry in json.loads(done.stdout)["entries"]}
        for case, name, _, _, word in rows:
            error = told[name]["error"] or {"code": 0, "message": "", "hint": ""}
            words = "told" if word in error["message"] and error["hint"] else f"not told: {error['message']}"
            there = "published" if (self.eval_cache / "models" / name).exists() else "nothing published"
            self.case(kind, case, "code 8, told, nothing published", f"code {error['code']}, {words}, {there}")
            self.assertNotIn("\x1b", error["message"])

    def test_an_archive_is_never_text(self):
        for case, body, word in (("words", b"Not found", "Not found"), ("nothing", b"", "empty"), ("page", PAGE, "HTML")):
            path = self.manifest([{"name": "code", "source": self.serve(body) + "/zip/refs/heads/main", "dest": "torch/hub/code", "unpack": True}])
            done = self.fvp(path)
            self.case("unpack", case, "exit 8, told", f"exit {done.returncode}, " + ("told" if word in done.stderr else done.stderr))

    def test_text_that_is_asked_for_as_text(self):
        for name, body in (("a.txt", b"words"), ("a.json", b'{"a": 1}'), ("a.yaml", b"a: 1\n"), ("a.md", b"<!-- x -->\n# A"),
                           ("a.html", PAGE), ("a.csv", b"a,b\n"), ("LICENSE", b"words"), ("a.xml", S3_ERROR), ("labels.txt", b"")):
            self.taken("text that is wanted", name, self.serve(body, HTML) + "/" + name, name, body)
        for name, body in (("c.json", b'{"chat_template": "<p>{{ text }}</p>"}'), ("tokens", b"words of <unk> and <s>\n"), ("app.vue", b"<script></script>"),
                           ("a.php", b"<html>"), ("a.svelte", b"<script>")):
            self.taken("text that is wanted", name + " called HTML", self.serve(body, HTML) + "/" + name, name, body)
        index = "model.safetensors.index.json"
        self.taken("text that is wanted", index, self.serve(b"{}") + "/" + index, index, b"{}")
        self.refused("text that is not wanted", "page as .json", self.serve(PAGE, HTML) + "/a.json", "b.json", "HTML")
        self.refused("text that is not wanted", "page without a suffix", self.serve(PAGE) + "/a", "a", "HTML")
        self.refused("text that is not wanted", "pointer as .txt", self.serve(POINTER) + "/a", "vocab.txt", "LFS")

    def test_weights_that_look_like_text_or_are_called_so(self):
        weights = os.urandom(3000)
        self.taken("right weights", "called HTML", self.serve(b"PK\x03\x04\0" + weights, HTML) + "/w.pth", "a.pth", b"PK\x03\x04\0" + weights)
        text = pickle.dumps({"layer": [0.5] * 300, "name": "w"}, protocol=0)
        self.taken("right weights", "pickle of protocol 0", self.serve(text) + "/w.pkl", "b.pkl", text)
        text = pickle.dumps([1, "two"], protocol=0)
        self.taken("right weights", "short pickle of protocol 0", self.serve(text) + "/w.pth", "c.pth", text)
        word2vec = b"2 3\nking " + b"\x00\x00\x80?" * 3 + b"\nqueen " + b"\x00\x00\x80?" * 3
        self.taken("right weights", "text in front of numbers", self.serve(word2vec) + "/w.bin", "d.bin", word2vec)
        for i, kind in enumerate((HTML, "text/plain", "application/json", BINARY)):
            for j, size in enumerate((64, 256, 1024, 4096)):
                body = b"\x00" + os.urandom(size)
                self.taken("right weights", f"{size} bytes called {kind}", self.serve(body, kind) + "/w.bin", f"r{i}{j}.bin", body)
        body = bytes(b for b in os.urandom(20_000) if b > 0x20 and b != 0x7F)
        self.taken("right weights", "numbers without control characters", self.serve(body) + "/w.bin", "numbers.bin", body)
        for data in ({"a": [1.5, None, "é"]}, [b"\xff\0"], "x", 5, {"n": 2**200}):
            text = pickle.dumps(data, protocol=0)
            self.taken("right weights", f"pickle of protocol 0, {data}", self.serve(text, "text/plain") + "/w.pkl", "p.pkl", text)
            (self.eval_cache / "models/p.pkl").unlink()
        self.taken("right weights", "one byte", self.serve(b"\x01") + "/w.pth", "e.pth", b"\x01")
        self.taken("right weights", "gzip", self.serve(gzip.compress(b"words")) + "/w.pth.gz", "f.pth.gz", gzip.compress(b"words"))

    def test_the_digest_decides_alone(self):
        for case, body in (("page", PAGE), ("pointer", POINTER), ("words", b"words"), ("nothing", b"")):
            digest = hashlib.sha256(body).hexdigest()
            entry = {"name": f"{case}.pth", "source": self.serve(body, HTML) + "/w.pth", "sha256": digest}
            done = self.fvp(self.manifest([entry]))
            self.case("pinned", case, "exit 0, whole", self.seen(done, self.eval_cache / f"models/{case}.pth", body))
        wrong = {"name": "wrong.pth", "source": self.serve(PAGE, HTML) + "/w.pth", "sha256": "0" * 64}
        done = self.fvp(self.manifest([wrong]))
        told = "told" if "HTML" in done.stderr else done.stderr
        self.case("pinned", "another page", "exit 8, told", f"exit {done.returncode}, {told}")
        done = self.fvp(self.manifest([{"name": "s.pth", "source": self.serve(POINTER) + "/w.pth", "size": len(POINTER)}]))
        self.case("pinned", "pointer of the right size", "exit 8", f"exit {done.returncode}")

    def test_a_repository_may_have_anything(self):
        files = {"pointer.bin": POINTER, "empty.bin": b"", "words.bin": b"words", "page.html": PAGE}
        for name, body in files.items():
            self.hub.put(f"models/org/model/{name}", body)
        done = self.fvp("ensure", "org/model")
        self.assert_ok(done)
        folder = done.stdout.strip()
        for name, body in files.items():
            self.case("right by the Hub's list", name, "exit 0, whole", self.seen(done, f"{folder}/{name}", body))
        self.case("right by the Hub's list", "a pointer is told", True, "Git LFS pointer" in done.stderr)

    def test_the_page_of_a_file(self):
        done, _ = self.ensure(self.serve(PAGE, HTML) + "/org/model/blob/main/w.pth", "w.pth")
        told = "told" if "/resolve/" in done.stderr else done.stderr
        self.case("no checkpoint", "address with /blob/", "exit 8, told", f"exit {done.returncode}, {told}")

    def test_a_mirror_that_has_the_file_is_asked_next(self):
        weights = os.urandom(5000)
        entry = {"name": "w.pth", "source": self.serve(b"Not found") + "/w.pth", "mirrors": [self.serve(weights) + "/w.pth"]}
        done = self.fvp(self.manifest([entry]))
        self.case("no checkpoint", "words from the first address only", "exit 0, whole", self.seen(done, self.eval_cache / "models/w.pth", weights))

    def test_a_body_whose_end_nobody_told(self):
        # Formats that say how long they are show whether the connection ended too early.
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02." * 500)
        whole = data.getvalue()
        plain = b"\x80\x02" + os.urandom(3000) + b"\0"
        for how, told in (("ended with the connection", {"length": ""}), ("chunked", {"chunked": True})):
            for case, body, name in (("cut zip", whole[:-100], "cut.pth"), ("cut to nothing", b"", "none.pth"),
                                     ("cut safetensors", (500).to_bytes(8, "little") + b'{"a', "cut.safetensors")):
                url = self.site(lambda asked: cases.Answer(200, {}, body, **told)).url
                if how == "chunked" and body:  # its last chunk has told the end
                    self.taken("untold end", f"{case}, {how}", url + "/w", how[0] + name, body)
                    continue
                word = "is empty" if not body else "cut short"
                self.refused("untold end", f"{case}, {how}", url + "/w", how[0] + name, word.removeprefix("is "))
            for case, body, name in (("zip", whole, "whole.pth"), ("pickle", plain, "plain.pth")):
                url = self.site(lambda asked: cases.Answer(200, {}, body, **told)).url
                self.taken("untold end", f"whole {case}, {how}", url + "/w", how[0] + name, body)
            # Who gives the size has told the end.
            url = self.site(lambda asked: cases.Answer(200, {}, whole[:-100], **told)).url
            name = how[0] + "size.pth"
            done = self.fvp(self.manifest([{"name": name, "source": url + "/w", "size": len(whole) - 100}]))
            self.case("untold end", f"cut zip with its size, {how}", "exit 0, whole",
                      self.seen(done, self.eval_cache / "models" / name, whole[:-100]))
        url = self.serve(whole[:-100])
        self.taken("untold end", "cut zip that the server has", url + "/w", "has.pth", whole[:-100])
        done, _ = self.ensure(url + "/w", "has2.pth")
        self.case("untold end", "cut zip that the server has, warning", True,
                  "warning" in done.stderr and "cut short" in done.stderr)

    def test_an_archive_that_is_one(self):
        entry = {"name": "code", "source": self.serve(archive(), HTML) + "/zip/refs/heads/main", "dest": "torch/hub/code", "unpack": True}
        done = self.fvp(self.manifest([entry]))
        self.case("unpack", "an archive called HTML", "exit 0, unpacked",
                  f"exit {done.returncode}, " + ("unpacked" if (self.eval_cache / "torch/hub/code/empty").exists() else done.stderr))


if __name__ == "__main__":
    cases.main()
