"""What servers do to a file on its way: cut it, label it, refuse it, ask for patience."""

import cases

WHOLE = bytes(range(256)) * 8192  # 2 MiB


class TheEndOfAFile(cases.Cases):
    def test_a_shorter_range_of_an_unknown_length_is_not_the_end(self):
        """The first answer is cut, the rest is answered with 100,000 bytes and "*" for the length."""

        def answer(asked):
            if not asked.range():
                return cases.Answer(200, {"ETag": '"v1"', "Transfer-Encoding": "identity"}, WHOLE, str(len(WHOLE)), 1_200_000)
            first, last = asked.range()
            end = min(first + 100_000, len(WHOLE), (last or len(WHOLE)) + 1)
            if first >= len(WHOLE):
                return cases.Answer(416, {"Content-Range": f"bytes */{len(WHOLE)}"})
            return cases.Answer(206, {"ETag": '"v1"', "Content-Range": f"bytes {first}-{end - 1}/*"}, WHOLE[first:end])

        site = self.site(answer)
        done = self.fvp("ensure", f"{site.url}/f.bin")
        seen = self.seen(done, self.eval_cache / "models/f.bin", WHOLE)
        self.case("end of a file", "206 A-B/* shorter than asked", "exit 0, whole", seen)


if __name__ == "__main__":
    cases.main()
