"""What servers do to a file on its way: cut it, label it, refuse it, ask for patience, set cookies."""

import gzip
import threading

import cases
from cases import Answer, harness

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


class Servers(cases.Cases):
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


class Patience(Servers):
    kind = "a limit, and no refusal"

    def test_403_that_says_when_it_ends(self):
        for name, headers in (
            ("Retry-After", {"Retry-After": "1"}),
            ("X-RateLimit-Remaining", {"X-RateLimit-Remaining": "0"}),
            ("RateLimit", {"RateLimit": '"api";r=0;t=1'}),
        ):

            def answer(asked, headers=headers):
                return Answer(403, headers) if asked.number == 1 else Answer(200, {}, WHOLE)

            _, seen, _ = self.fetch(answer, f"{name}.bin", WHOLE)
            self.case(self.kind, f"403 with {name}", "exit 0, whole", seen)

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
        cache = self.dir / f"eval-{refusal.status}"
        done = self.fvp(manifest, "--max-active", "8", "--retries", "1", "--cache-dir", cache)
        there = sum((cache / "models" / name).exists() for name in names)
        return done, f"exit {done.returncode}, {there} files"

    def test_a_host_that_refuses_more_than_two_at_once(self):
        # After a rate limit, and of a server in trouble, one is tried once more first.
        for status, asked_first in ((403, 8), (429, 9), (503, 9)):
            done, seen = self.at_once(2, Answer(status), asked_first)
            self.case(self.kind, f"{status} to more than 2 downloads at once", "exit 0, 8 files", seen)
            self.assertIn("--max-active", done.stderr)

    def test_one_that_is_refused_beside_others(self):
        done, _ = self.at_once(8, Answer(403), 8, denied=("3.bin",))
        self.case(self.kind, "403 for one of 8", "exit 4", f"exit {done.returncode}")


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
