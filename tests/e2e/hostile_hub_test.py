"""A Hub that lies, never ends or means harm: one clear error, in bounded memory, and no path is made
of what it says."""

import http.server
import json
import resource
import subprocess
import threading

import harness

COMMIT = "c" * 40
MEMORY = 400 << 20  # bytes; far below what any of these answers would need


class Hostile(http.server.BaseHTTPRequestHandler):
    """Answers with whatever the test has put into `server.answers` by path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path.split("?")[0])
        try:
            if answer is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                answer(self)
        except OSError:
            pass  # the client has heard enough
        self.close_connection = True

    def log_message(self, *_):
        pass


def body(text, *headers):
    data = text if isinstance(text, bytes) else text.encode()

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def endless(piece, total):
    """`total` bytes without a length told."""

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        sent = 0
        while sent < total:
            handler.wfile.write(piece)
            sent += len(piece)

    return answer


def listing(*files):
    return json.dumps([{"type": "file", "oid": "a" * 40, "size": 3, **f} for f in files])


class HostileHub(harness.EndToEnd):
    TREE = f"/api/models/org/model/tree/{COMMIT}"

    def setUp(self):
        super().setUp()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
        self.server.daemon_threads = True
        self.server.answers = {"/api/models/org/model/revision/main": body(json.dumps({"sha": COMMIT}))}
        self.server.asked = []
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.env["HF_ENDPOINT"] = f"http://127.0.0.1:{self.server.server_port}"
        self.path = self.manifest([{"name": "m", "source": "org/model"}])

    def fails(self, code, *words):
        """Under a limit of memory that would not hold what the server sends."""
        done = subprocess.run(
            [self.command(), self.path, "--retries", "0"], env=self.env, cwd=self.dir, capture_output=True, text=True,
            timeout=harness.PATIENCE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY)),
        )
        self.assert_ok(done, code)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertIn("hint:", done.stderr)
        self.assertLess(len(done.stderr), 4000)
        snapshots = self.hf_cache / "models--org--model/snapshots"
        self.assertEqual([p for p in snapshots.rglob("*") if not p.is_dir()] if snapshots.exists() else [], [])
        self.assertEqual([p for p in self.dir.rglob("*escaped*")], [])
        return done

    def test_a_listing_of_a_gigabyte(self):
        self.server.answers[self.TREE] = endless(b" " * (1 << 20), 1 << 30)
        self.fails(6, "more than 64 MiB")

    def test_a_listing_that_is_ten_thousand_deep(self):
        self.server.answers[self.TREE] = body("[" * 10_000 + "]" * 10_000)
        self.fails(8, "expected JSON")

    def test_a_listing_that_never_closes_its_brackets(self):
        self.server.answers[self.TREE] = body("[" * 5_000_000)
        self.fails(8, "expected JSON")

    def test_a_listing_of_thirty_million_values(self):
        self.server.answers[self.TREE] = body("[" + "[]," * 10_000_000 + "0" + ",0" * 15_000_000 + "]")
        self.fails(8, "expected JSON")

    def test_headers_of_a_megabyte(self):
        self.server.answers[self.TREE] = body("[]", ("X-Long", "x" * (1 << 20)))
        self.fails(6)

    def test_a_thousand_headers_of_a_page_each(self):
        self.server.answers[self.TREE] = body("[]", *[(f"X-{i}", "x" * 4096) for i in range(1000)])
        self.fails(6)

    def test_names_that_are_no_names(self):
        bad = ["../escaped", "/escaped", "a/../../escaped", "a\\..\\escaped", "a//escaped", "./escaped", "a/\u0001escaped", "", "x" * 300]
        for path in bad:
            with self.subTest(path=path):
                self.server.answers[self.TREE] = body(listing({"path": path}))
                self.fails(8, "path")

    def test_names_of_megabytes_page_after_page(self):
        def answer(handler):
            page = int(handler.path.partition("page=")[2] or 0)
            data = listing({"path": f"{page}/" + "a/" * 2_000_000 + "b"}).encode()
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.send_header("Link", f'<{self.TREE}?page={page + 1}>; rel="next"')
            handler.end_headers()
            handler.wfile.write(data)

        self.server.answers[self.TREE] = answer
        self.fails(8, "more than 2048 bytes")

    def test_digests_that_are_no_digests(self):
        for file in ({"oid": "../escaped"}, {"oid": "A" * 39}, {"lfs": {"oid": "../escaped", "size": 3}}, {"size": -1}, {"size": "3"}):
            with self.subTest(file=file):
                self.server.answers[self.TREE] = body(listing({"path": "a", **file}))
                self.fails(8)

    def test_a_commit_that_is_none(self):
        for sha in ("../escaped", "main", "C" * 40, 7, None):
            with self.subTest(sha=sha):
                self.server.answers["/api/models/org/model/revision/main"] = body(json.dumps({"sha": sha}))
                self.fails(8, "40 hex digits")

    def test_sizes_that_are_not_those_of_the_files(self):
        resolve = f"/org/model/resolve/{COMMIT}/a"
        self.server.answers[self.TREE] = body(listing({"path": "a", "size": 3}))
        for served in (b"aa", b"aaaa", b"aaa"):  # the last has the size and not the digest
            with self.subTest(served=served):
                self.server.answers[resolve] = body(served)
                self.fails(8)

    def test_a_body_that_does_not_end(self):
        self.server.answers[self.TREE] = body(listing({"path": "a", "size": 3}))
        self.server.answers[f"/org/model/resolve/{COMMIT}/a"] = endless(b"a" * (1 << 20), 1 << 34)
        self.fails(8, "more than the expected 3 bytes")

    def test_pages_that_go_round(self):
        self.server.answers[self.TREE] = body("[]", ("Link", f'<{self.TREE}?cursor=x>; rel="next"'))
        self.fails(8, "do not end")

    def test_redirects_that_go_round(self):
        def answer(handler):
            handler.send_response(302)
            handler.send_header("Location", handler.path)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        self.server.answers[self.TREE] = answer
        self.fails(6, "redirects")
        self.assertLess(len(self.server.asked), 20)


if __name__ == "__main__":
    harness.main()
