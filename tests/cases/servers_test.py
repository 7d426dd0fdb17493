"""What servers do to a file on its way: cut it, label it, refuse it, ask for patience, set cookies."""

import email.utils
import gzip
import os
import socketserver
import struct
import threading
import time
from socket import SO_LINGER, SOL_SOCKET

import cases
from cases import Answer, Asked, harness

WHOLE = bytes(range(256)) * 8192  # 2 MiB


def part(asked, data, most=None, headers=None, total=True):
    """The answer to a range of `data`: at most `most` bytes of it; without `total` of an unknown length."""
    first, last = asked.range() or (0, None)
    end = len(data) if last is None else min(last + 1, len(data))
    if first >= len(data):
        return Answer(416, {"Content-Range": f"bytes */{len(data)}"})
    if most:
        end = min(end, first + most)
    told = f"bytes {first}-{end - 1}/{len(data) if total else '*'}"
    return Answer(206, {"Content-Range": told, **(headers or {})}, data[first:end])


def http(status, headers=None, body=b""):
    """The bytes of an answer after which the connection ends."""
    told = {"Content-Length": len(body), "Connection": "close", **(headers or {})}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in told.items()), "", ""]
    return "\r\n".join(lines).encode() + body


class Wire(cases.Served):
    """A server that sends the bytes that `answer(asked, running)` gives, slowly, so that more connections pay; for
    None it resets the connection. `running`: requests that are being answered, this one too, as a server counts them
    that notices the end of one `late` seconds later."""

    def __init__(self, answer, late=0.0):
        self.asked = []
        self.running = 0
        lock = threading.Lock()

        class Handler(socketserver.StreamRequestHandler):
            def handle(handler):  # noqa: N805
                lines = []
                while line := handler.rfile.readline().strip():
                    lines.append(line.decode())
                if not lines:
                    return
                path = lines[0].split(" ")[1]
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
                with lock:
                    self.running += 1
                    asked = Asked(path, headers, 1 + sum(one.path == path for one in self.asked))
                    self.asked.append(asked)
                    told = answer(asked, self.running)
                try:
                    if told is None:
                        handler.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    for begin in range(0, len(told), 64 << 10):
                        handler.wfile.write(told[begin : begin + (64 << 10)])
                        if len(told) > 1 << 20:
                            time.sleep(0.01)
                finally:
                    threading.Timer(late if told else 0, ended).start()

        def ended():
            with lock:
                self.running -= 1

        self.serve(Handler)


class Servers(cases.Cases):
    def wire(self, answer, late=0.0):
        wire = Wire(answer, late)
        self.addCleanup(wire.close)
        return wire

    def fetch_from(self, site, name, data=None, options=(), mirrors=(), **fields):
        """What the run came to of one entry that `site` serves, and `mirrors` too."""
        if mirrors:
            fields["mirrors"] = [f"{mirror.url}/{name}" for mirror in mirrors]
        manifest = self.manifest([{"name": name, "source": f"{site.url}/{name}", **fields}])
        done = self.fvp(manifest, *options)
        return done, self.seen(done, self.eval_cache / "models" / name, data)

    def fetch(self, answer, name="f.bin", data=None, options=(), **pin):
        """(what the run came to, the site) of one entry whose server answers so."""
        site = self.site(answer)
        manifest = self.manifest([{"name": name, "source": f"{site.url}/{name}", **pin}])
        done = self.fvp(manifest, *options)
        return done, self.seen(done, self.eval_cache / "models" / name, data), site

    def pins(self, data):
        return {"sha256": {"sha256": harness.sha256(data)}, "size": {"size": len(data)}, "no pin": {}}


class TheEndOfAFile(Servers):
    kind = "end of a file"

    def test_a_shorter_range_of_an_unknown_length_is_not_the_end(self):
        def answer(asked):
            if asked.range():
                return part(asked, WHOLE, 100_000, {"ETag": '"v1"'}, total=False)
            return Answer(200, {"ETag": '"v1"', "Accept-Ranges": "bytes"}, WHOLE, cut=1_200_000, chunked=True)

        _, seen, _ = self.fetch(answer, data=WHOLE)
        self.case(self.kind, "206 A-B/* shorter than asked, after a cut", "exit 0, whole", seen)

    def test_short_ranges_are_progress(self):
        for most, data in ((256 << 10, WHOLE), (1000, WHOLE[:60_000])):
            for pin in ("sha256", "no pin"):

                def answer(asked, most=most, data=data):
                    if asked.range():
                        return part(asked, data, most, {"ETag": '"v1"'})
                    return Answer(200, {"ETag": '"v1"', "Accept-Ranges": "bytes"}, data, cut=most)

                name = f"{most}-{pin.split()[0]}.bin"
                options = ("--retries", "2", "--connections", "1")
                _, seen, _ = self.fetch(answer, name, data, options, **self.pins(data)[pin])
                self.case(self.kind, f"right pieces of {most} bytes, {pin}", "exit 0, whole", seen)

    def test_a_length_that_is_no_number(self):
        def answer(asked):
            return Answer(200, {}, WHOLE, length="99999999999999999999999", cut=1_000_000)

        done, seen, _ = self.fetch(answer, "nolength.bin")
        self.case(self.kind, "Content-Length that is no number, cut body", "exit 6", seen)
        self.assertIn("length", done.stderr)

    def test_a_chunked_body_that_is_cut(self):
        def answer(asked):
            return Answer(200, {}, WHOLE, cut=None if asked.number > 1 else 1_000_000, chunked=True)

        _, seen, _ = self.fetch(answer, data=WHOLE)
        self.case(self.kind, "chunked, cut, no ranges", "exit 0, whole", seen)


class Validators(Servers):
    kind = "digest before ETag"

    def test_each_node_has_an_etag_of_its_own(self):
        data = WHOLE * 8
        sent = []

        def answer(asked):
            etag = f'"node-{asked.number}"'
            mine = asked.range()
            if mine and asked.headers.get("if-range", etag) == etag:
                told = part(asked, data, headers={"ETag": etag})
            else:
                told = Answer(200, {"ETag": etag, "Accept-Ranges": "bytes"}, data)
            told.cut = 3 << 20
            sent.append(min(told.cut, len(told.body)))
            return told

        _, seen, _ = self.fetch(answer, data=data, options=("--connections", "1"), sha256=harness.sha256(data))
        self.case(self.kind, "another ETag on the rest, cut each 3 MiB", "exit 0, whole", seen)
        self.case(self.kind, "of the same: bytes sent", len(data), sum(sent))

    def test_a_file_that_changes_under_way(self):
        new = WHOLE[::-1]

        def answer(asked):
            if asked.number == 1:
                return Answer(200, {"ETag": '"v1"', "Accept-Ranges": "bytes"}, WHOLE, cut=1_000_000)
            if asked.range() and asked.headers.get("if-range", '"v2"') == '"v2"':
                return part(asked, new, headers={"ETag": '"v2"'})
            return Answer(200, {"ETag": '"v2"', "Accept-Ranges": "bytes"}, new)

        for pin in ("sha256", "size", "no pin"):
            name = f"changed-{pin.split()[0]}.bin"
            _, seen, _ = self.fetch(answer, name, new, **self.pins(new)[pin])
            self.case(self.kind, f"the file changes after a cut, {pin}", "exit 0, whole", seen)

    def test_a_mirror_that_ignores_if_range(self):
        new = WHOLE[::-1]

        def answer(asked):
            if asked.number == 1:
                return Answer(200, {"ETag": '"v1"', "Accept-Ranges": "bytes"}, WHOLE, cut=1_000_000)
            if asked.range():
                return part(asked, new, headers={"ETag": '"v2"'})
            return Answer(200, {"ETag": '"v2"'}, new)

        _, seen, _ = self.fetch(answer, "olah.bin", new)
        self.case(self.kind, "If-Range ignored, no pin", "exit 0, whole", seen)


class Labels(Servers):
    kind = "digest before headers"

    def test_an_encoding_that_only_labels(self):
        for coding in ("x-gzip", "gzip", "aws-chunked", "UTF-8", "br", "x-unknown"):
            for pin, fields in self.pins(WHOLE).items():
                name = f"{coding}-{pin.split()[0]}.bin"
                done, seen, _ = self.fetch(lambda _, c=coding: Answer(200, {"Content-Encoding": c}, WHOLE), name, WHOLE, **fields)
                expected = "exit 8" if pin == "no pin" else "exit 0, whole"
                self.case(self.kind, f"Content-Encoding: {coding}, {pin}", expected, seen)
                if pin == "no pin":
                    self.assertIn("the server, or a proxy before it", done.stderr)
                    self.assertNotIn("check its address, and `sha256`", done.stderr)

    def test_the_files_own_encoding(self):
        data = gzip.compress(WHOLE)
        for coding, name in (("x-gzip", "a.tgz"), ("gzip", "b.tar.gz"), ("GZIP", "c.gz")):
            _, seen, _ = self.fetch(lambda _, c=coding: Answer(200, {"Content-Encoding": c}, data), name, data)
            self.case(self.kind, f"Content-Encoding: {coding} of {name}, no pin", "exit 0, whole", seen)

    def test_an_encoding_that_is_real(self):
        def answer(_):
            return Answer(200, {"Content-Encoding": "gzip"}, gzip.compress(WHOLE))

        for pin in ("sha256", "size"):
            done, seen, _ = self.fetch(answer, f"real-{pin}.bin", **self.pins(WHOLE)[pin])
            self.case(self.kind, f"really encoded, {pin}", "exit 8", seen)
            self.assertIn("Content-Encoding: gzip", done.stderr)

    def test_a_rest_that_is_labelled(self):
        def answer(asked):
            if asked.range():
                return part(asked, WHOLE, headers={"ETag": '"v1"', "Content-Encoding": "aws-chunked"})
            return Answer(200, {"ETag": '"v1"', "Content-Encoding": "aws-chunked"}, WHOLE, cut=1_000_000)

        _, seen, _ = self.fetch(answer, data=WHOLE, **self.pins(WHOLE)["sha256"])
        self.case(self.kind, "Content-Encoding: aws-chunked on whole and rest, sha256", "exit 0, whole", seen)

    def test_203(self):
        for pin, fields in self.pins(WHOLE).items():
            name = f"203-{pin.split()[0]}.bin"
            _, seen, _ = self.fetch(lambda _: Answer(203, {}, WHOLE), name, WHOLE, **fields)
            self.case(self.kind, f"203, {pin}", "exit 6" if pin == "no pin" else "exit 0, whole", seen)

    def test_206_with_all_of_it(self):
        for pin, fields in self.pins(WHOLE).items():
            name = f"206-{pin.split()[0]}.bin"
            _, seen, _ = self.fetch(lambda asked: part(asked, WHOLE), name, WHOLE, **fields)
            self.case(self.kind, f"206 with all of it, {pin}", "exit 0, whole", seen)

    def test_206_with_all_of_it_that_says_less(self):
        for what, headers in (("total *", {"Content-Range": f"bytes 0-{len(WHOLE) - 1}/*"}), ("no Content-Range", {})):
            for pin, fields in self.pins(WHOLE).items():
                name = f"206-{what.split()[0]}-{pin.split()[0]}.bin"
                _, seen, _ = self.fetch(lambda _, h=headers: Answer(206, h, WHOLE), name, WHOLE, **fields)
                expected = "exit 6" if pin == "no pin" else "exit 0, whole"
                self.case(self.kind, f"206 with all of it, {what}, {pin}", expected, seen)

    def test_a_list_of_encodings(self):
        zipped = gzip.compress(WHOLE)
        for lines, name, data, expected in (
            (["identity", "gzip"], "two.bin", zipped, "exit 8"),
            (["identity, identity"], "none.bin", WHOLE, "exit 0, whole"),
            (["identity", "identity"], "none2.bin", WHOLE, "exit 0, whole"),
            (["gzip, identity"], "own.tgz", zipped, "exit 0, whole"),
            (["gzip", "identity"], "own2.tgz", zipped, "exit 0, whole"),
            (["gzip, gzip"], "twice.tgz", zipped, "exit 8"),
        ):
            _, seen, _ = self.fetch(lambda _, h=lines, d=data: Answer(200, {"Content-Encoding": h}, d), name, data)
            self.case(self.kind, f"Content-Encoding: {lines} of {name}, no pin", expected, seen)

    def test_what_is_no_answer(self):
        for status in (201, 202, 204, 206):
            done, seen, _ = self.fetch(lambda _, s=status: Answer(s), f"{status}.bin")
            self.case(self.kind, f"{status} without a body", "exit 6", seen)
            self.assertIn("open the address in a browser", done.stderr)


class LargeFiles(Servers):
    kind = "asked for in ranges"

    def test_400_without_a_range(self):
        def answer(asked):
            if not asked.range():
                return Answer(400, {}, b"too large")
            return part(asked, WHOLE, headers={"ETag": '"v1"'})

        for pin, fields in self.pins(WHOLE).items():
            _, seen, site = self.fetch(answer, f"400-{pin.split()[0]}.bin", WHOLE, **fields)
            self.case(self.kind, f"400 without a range, {pin}", "exit 0, whole", seen)
            self.assertEqual(site.asked[0].range(), None)

    def test_400_all_the_same(self):
        _, seen, site = self.fetch(lambda _: Answer(400), "400.bin")
        self.case(self.kind, "400 with a range, too", "exit 6", seen)
        self.case(self.kind, "of the same: requests", 2, len(site.asked))

    def test_an_empty_file_that_is_400_without_a_range(self):
        def answer(asked):
            return part(asked, b"") if asked.range() else Answer(400)

        _, seen, _ = self.fetch(answer, "empty.txt", b"", size=0)
        self.case(self.kind, "400 without a range, of an empty file", "exit 0, whole", seen)

    def test_a_large_size_that_is_known(self):
        _, seen, site = self.fetch(
            lambda _: Answer(404), "large.bin", options=("--no-space-check",), size=5 << 30, sha256="0" * 64
        )
        self.case(self.kind, "5 GiB, size known: the first request", (0, (4 << 30) - 1), site.asked[0].range())


class RefusedRanges(Servers):
    kind = "ranges that are refused"
    tagged = {"ETag": '"v1"', "Accept-Ranges": "bytes"}

    def test_after_a_cut(self):
        for status in (400, 403, 500, 501, 503):
            for pin in ("sha256", "no pin"):

                def answer(asked, status=status):
                    if asked.range():
                        return Answer(status)
                    return Answer(200, self.tagged, WHOLE, cut=1_000_000 if asked.number == 1 else None)

                name = f"{status}-{pin.split()[0]}.bin"
                _, seen, _ = self.fetch(answer, name, WHOLE, ("--retries", "1"), **self.pins(WHOLE)[pin])
                self.case(self.kind, f"{status} to any range, after a cut, {pin}", "exit 0, whole", seen)

    def test_of_further_connections(self):
        data = os.urandom(1 << 20) * 12
        for status in (400, 403, 429, 503, "reset"):

            def answer(asked, _, status=status):
                if not asked.range():
                    return http(200, self.tagged, data)
                return None if status == "reset" else http(status)

            wire = self.wire(answer)
            _, seen = self.fetch_from(wire, f"{status}.bin", data, ("--retries", "1"))
            self.case(self.kind, f"{status} to further connections", "exit 0, whole", seen)
            self.assertGreater(len(wire.asked), 1)
            self.case(self.kind, "of the same: the whole was asked for", 1, sum(not one.range() for one in wire.asked))

    def test_beyond_so_many_connections_of_one_file(self):
        data = os.urandom(1 << 20) * 12
        for status in (400, 403, 429, 503, "reset"):
            for most in (1, 2):

                def answer(asked, running, status=status, most=most):
                    if running > most:
                        return None if status == "reset" else http(status)
                    if not asked.range():
                        return http(200, self.tagged, data)
                    told = part(asked, data, headers=self.tagged)
                    return http(206, told.headers, told.body)

                _, seen = self.fetch_from(self.wire(answer, late=0.2), f"{status}-{most}.bin", data)
                self.case(self.kind, f"{status} beyond {most} connections of one file", "exit 0, whole", seen)

    def test_wrong_bytes_in_ranges(self):
        data = os.urandom(1 << 20) * 12

        def answer(asked, _):
            if not asked.range():
                return http(200, self.tagged, data)
            told = part(asked, data, headers=self.tagged)
            return http(206, told.headers, bytes(len(told.body)))

        wire = self.wire(answer)
        _, seen = self.fetch_from(wire, "stale.bin", data, sha256=harness.sha256(data))
        self.case(self.kind, "ranges from a node that has another file, sha256", "exit 0, whole", seen)
        self.assertTrue(any(one.range() for one in wire.asked))


class Heads(Servers):
    kind = "an answer that is cut in its head"

    def test_once(self):
        for name, head in (
            ("status", b"HTTP/1.1 200 OK\r\n"),
            ("name", b"HTTP/1.1 200 OK\r\nContent-Le"),
            ("value", b"HTTP/1.1 200 OK\r\nContent-Length: 20"),
            ("line", b"HTTP/1.1 200 OK\r\nContent-Type: x/y\r\n"),
        ):
            wire = self.wire(lambda asked, _, h=head: h if asked.number == 1 else http(200, {}, WHOLE))
            _, seen = self.fetch_from(wire, f"{name}.bin", WHOLE)
            self.case(self.kind, f"after its {name}", "exit 0, whole", seen)

    def test_always(self):
        wire = self.wire(lambda *_: b"HTTP/1.1 200 OK\r\n")
        done, seen = self.fetch_from(wire, "always.bin", options=("--retries", "1"))
        self.case(self.kind, "each time", "exit 6", seen)
        self.assertNotIn("No error", done.stderr)


class Mirrors(Servers):
    kind = "a mirror in place of a long wait"

    def test_a_limit_of_the_first_address(self):
        for status in (403, 420, 429, 503):
            site = self.site(lambda _, s=status: Answer(s, {"Retry-After": "3600"}))
            mirror = self.site(lambda _: Answer(200, {}, WHOLE))
            names = [f"{status}-{n}.bin" for n in range(3)]
            manifest = self.manifest(
                [{"name": n, "source": f"{site.url}/{n}", "mirrors": [f"{mirror.url}/{n}"]} for n in names]
            )
            # What is asked for at once and what is asked for later.
            done = self.fvp(manifest, "--max-active", "2")
            there = sum((self.eval_cache / "models" / n).exists() for n in names)
            seen = f"exit {done.returncode}, {there} files"
            self.case(self.kind, f"{status} with Retry-After 3600", "exit 0, 3 files", seen)

    def test_503_once_and_for_all(self):
        site = self.site(lambda _: Answer(503))
        mirror = self.site(lambda _: Answer(200, {}, WHOLE))
        _, seen = self.fetch_from(site, "plain.bin", WHOLE, mirrors=[mirror])
        self.case(self.kind, "503", "exit 0, whole", seen)
        self.case(self.kind, "503: requests to the first address", 1, len(site.asked))

    def test_a_mirror_that_has_nothing(self):
        site = self.site(lambda asked: Answer(503) if asked.number == 1 else Answer(200, {}, WHOLE))
        _, seen = self.fetch_from(site, "back.bin", WHOLE, mirrors=[self.site(lambda _: Answer(404))])
        self.case(self.kind, "503 once, and a mirror without the file", "exit 0, whole", seen)

    def test_none_has_it(self):
        site = self.site(lambda _: Answer(503))
        _, seen = self.fetch_from(site, "none.bin", WHOLE, ("--retries", "1"), [self.site(lambda _: Answer(404))])
        self.case(self.kind, "503 each time, and a mirror without the file", "exit 6", seen)


class Patience(Servers):
    kind = "a limit, and no refusal"

    def test_403_that_says_when_it_ends(self):
        for name, headers in (
            ("Retry-After", {"Retry-After": "1"}),
            ("X-RateLimit-Remaining", {"X-RateLimit-Remaining": "0"}),
            ("RateLimit", {"RateLimit": '"api";r=0;t=1'}),
            ("RateLimit-no-time", {"RateLimit": '"api";r=0'}),
            ("RateLimit-old", {"RateLimit": "limit=10, remaining=0, reset=1"}),
            ("X-Rate-Limit-Remaining", {"X-Rate-Limit-Remaining": "0"}),
            ("of-two-limits", {"X-RateLimit-Remaining": "0, 0"}),
            ("Retry-After-fraction", {"Retry-After": "0.5"}),
            ("Retry-After-words", {"Retry-After": "soon"}),
            ("Retry-After-date", {"Retry-After": email.utils.formatdate(time.time() + 1, usegmt=True)}),
        ):

            def answer(asked, headers=headers):
                return Answer(403, headers) if asked.number == 1 else Answer(200, {}, WHOLE)

            _, seen, _ = self.fetch(answer, f"{name}.bin", WHOLE)
            self.case(self.kind, f"403 with {name}", "exit 0, whole", seen)

    def test_420_that_says_when_it_ends(self):
        def answer(asked):
            return Answer(420, {"Retry-After": "1"}) if asked.number == 1 else Answer(200, {}, WHOLE)

        _, seen, _ = self.fetch(answer, "420.bin", WHOLE)
        self.case(self.kind, "420 with Retry-After", "exit 0, whole", seen)

    def test_403_with_a_limit_that_stays(self):
        done, seen, _ = self.fetch(lambda _: Answer(403, {"Retry-After": "0"}), "stays.bin", options=("--retries", "1"))
        self.case(self.kind, "403 with Retry-After each time", "exit 7", seen)
        self.assertNotIn("without credentials", done.stderr)

    def at_once(self, most, refusal, asked_first, denied=()):
        """8 entries of a server that answers `most` downloads at once, and refuses `denied` always. None of them is
        answered before it has been asked `asked_first` times."""
        running = threading.Semaphore(most)
        begun = threading.Event()

        def answer(asked):
            if len(site.asked) >= asked_first:
                begun.set()
            if asked.path.strip("/") in denied or not running.acquire(blocking=False):
                if refusal is None:
                    raise ConnectionError  # it ends without an answer
                return refusal
            begun.wait(harness.PATIENCE / 2)
            return Slow()

        class Slow(Answer):
            def __init__(self):
                super().__init__(200, {}, WHOLE)

            def sent(self):
                running.release()

        site = self.site(answer)
        names = [f"{i}.bin" for i in range(8)]
        manifest = self.manifest([{"name": name, "source": f"{site.url}/{name}"} for name in names])
        cache = self.dir / f"eval-{refusal.status if refusal else 'end'}"
        done = self.fvp(manifest, "--max-active", "8", "--retries", "1", "--cache-dir", cache)
        there = sum((cache / "models" / name).exists() for name in names)
        return done, f"exit {done.returncode}, {there} files"

    def test_a_host_that_refuses_more_than_two_at_once(self):
        # After a rate limit, and of a server in trouble, one is tried once more first.
        for status, asked_first in ((403, 8), (429, 9), (503, 9)):
            done, seen = self.at_once(2, Answer(status), asked_first)
            self.case(self.kind, f"{status} to more than 2 downloads at once", "exit 0, 8 files", seen)
            self.assertIn("--max-active", done.stderr)

    def test_a_host_that_ends_the_connection_of_more_than_one(self):
        # All have been asked for once when the first is served; a moment later they are tried again.
        _, seen = self.at_once(1, None, 8)
        self.case(self.kind, "no answer to more than 1 download at once", "exit 0, 8 files", seen)

    def test_one_that_is_refused_beside_others(self):
        done, _ = self.at_once(8, Answer(403), 8, denied=("3.bin",))
        self.case(self.kind, "403 for one of 8", "exit 4", f"exit {done.returncode}")
        self.assertNotIn("try --max-active", done.stderr)

    def test_one_that_is_refused_beside_one_that_takes_long(self):
        again = threading.Event()
        while_it_ran = []

        def answer(asked):
            if asked.path == "/long.bin":
                while_it_ran.append(again.wait(harness.PATIENCE / 2))
                return Answer(200, {}, WHOLE)
            if asked.number > 1:
                again.set()
            return Answer(403)

        site = self.site(answer)
        names = ("long.bin", "refused.bin")
        manifest = self.manifest([{"name": n, "source": f"{site.url}/{n}"} for n in names])
        done = self.fvp(manifest, "--max-active", "2")
        self.case(self.kind, "403 for one beside a long one", "exit 4", f"exit {done.returncode}")
        self.case(self.kind, "of the same: asked for again while the long one ran", [True], while_it_ran)


class Cookies(Servers):
    kind = "cookies of one chain"

    def test_a_redirect_that_sets_a_cookie(self):
        def answer(asked):
            if "key=v" in asked.headers.get("cookie", ""):
                return Answer(200, {}, WHOLE)
            return Answer(302, {"Set-Cookie": "key=v; Path=/", "Location": asked.path})

        _, seen, site = self.fetch(answer, "cookie.bin", WHOLE)
        self.case(self.kind, "302 to itself with Set-Cookie", "exit 0, whole", seen)

    def test_a_cookie_that_is_never_enough(self):
        done, seen, _ = self.fetch(
            lambda asked: Answer(302, {"Set-Cookie": f"n={asked.number}", "Location": asked.path}), "login.bin"
        )
        self.case(self.kind, "302 to itself with Set-Cookie, for ever", "exit 6", seen)
        self.assertIn("cookie", done.stderr)

    def led(self, redirect, answer):
        """A site that leads there each time, and where: a right range is of 256 KiB at most there."""
        other = self.site(answer)
        site = self.site(lambda asked: Answer(302, {**redirect, "Location": f"{other.url}/{asked.number}"}))
        return site, other

    def test_a_place_that_wants_the_cookie_of_the_redirect(self):
        def answer(asked):
            if "key=v" not in asked.headers.get("cookie", ""):
                return Answer(403)
            if not asked.range():
                return Answer(200, {"Accept-Ranges": "bytes"}, WHOLE, cut=256 << 10)
            return part(asked, WHOLE, 256 << 10)

        site, other = self.led({"Set-Cookie": "key=v; Path=/"}, answer)
        _, seen = self.fetch_from(site, "led.bin", WHOLE, ("--connections", "1"), sha256=harness.sha256(WHOLE))
        self.case(self.kind, "short ranges behind a redirect with a cookie", "exit 0, whole", seen)
        without = sum("cookie" not in one.headers for one in other.asked)
        self.case(self.kind, "of the same: requests without the cookie", 0, without)

    def test_a_place_that_sends_the_whole_when_it_is_asked_again(self):
        def answer(asked):
            if asked.range() and asked.number == 1:
                return part(asked, WHOLE, 256 << 10)
            return Answer(200, {"Accept-Ranges": "bytes"}, WHOLE, cut=256 << 10)

        site, _ = self.led({}, answer)
        options = ("--connections", "1", "--retries", "2")
        _, seen = self.fetch_from(site, "again.bin", WHOLE, options, sha256=harness.sha256(WHOLE))
        self.case(self.kind, "short ranges, and 200 to what is asked there again", "exit 0, whole", seen)

    def test_not_to_another_site_and_not_in_another_chain(self):
        def answer(asked):
            if asked.path == "/first.bin" and asked.number == 1:
                return Answer(302, {"Set-Cookie": "secret=v; Path=/", "Location": other.url.replace("127.0.0.1", "localhost") + "/x"})
            return Answer(200, {}, WHOLE)

        other = self.site(lambda _: Answer(200, {}, WHOLE))
        site = self.site(answer)
        manifest = self.manifest([{"name": n, "source": f"{site.url}/{n}"} for n in ("first.bin", "second.bin")])
        done = self.fvp(manifest, "--max-active", "1")
        self.assert_ok(done)
        asked = [*other.asked, *site.asked]
        self.assertEqual(len(asked), 3)
        sent = [one.headers["cookie"] for one in asked if "cookie" in one.headers]
        self.case(self.kind, "cookies at another host and in the next chain", [], sent)


if __name__ == "__main__":
    cases.main()
