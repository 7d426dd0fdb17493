"""Bad input gets one clear error with a hint and the exit code of the table; nothing wrong is
published, and what was complete stays."""

import json
import os
import subprocess
import time

import harness


class BadInput(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.good = self.hub.put("files/good.pth", b"\x07good" * 1000)
        self.good_entry = {"name": "good.pth", "source": self.hub.file_url("good.pth")}

    def refused(self, done, code, *words):
        self.assert_ok(done, code)
        self.assertEqual(done.stdout, "")
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertRegex(done.stderr, r"(?m)^(fvprefetch: )?hint: \S")
        self.assertEqual(self.unfinished(), [])

    def fails(self, entry, code, *words, options=("--retries", "1"), env=None):
        """`entry` fails after a good one that must stay (one after the other: what is still on its
        way when something fails is given up)."""
        done = self.fvp(self.manifest([self.good_entry, entry]), "--max-active", "1", *options, env=env)
        self.assert_ok(done, code)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertRegex(done.stderr, r"(?m)hint: \S")
        self.assertFalse((self.eval_cache / "models" / entry["name"]).exists())
        self.assertEqual(self.unfinished(), [])
        return done

    # --- the manifest ----------------------------------------------------------------------------

    def test_a_missing_manifest(self):
        self.refused(self.fvp("absent.json"), 5, "absent.json")

    def test_a_missing_manifest_ends_every_rank_alike(self):
        done = self.mpirun(3, "absent.json")
        self.assertEqual(done.codes, [5, 5, 5])
        self.assertEqual(done.stderr.count("error:"), 1)
        plain = self.run_command([harness.MPIEXEC, "-n", 3, self.command(), "absent.json"])
        self.assertEqual(plain.returncode, 5)

    def test_bad_json_names_line_and_column(self):
        (self.dir / "bad.json").write_text('{"version": 1,\n "entries": [,]}')
        self.refused(self.fvp("bad.json"), 2, "bad.json:2:14")

    def test_all_mistakes_at_once_with_position_and_pointer(self):
        (self.dir / "bad.json").write_text(
            '{"version": 1, "entries": [\n'
            '  {"name": "a", "source": "org/a", "filname": "x"},\n'
            '  {"name": "a", "source": "org/b"},\n'
            '  {"name": "../up", "source": "https://host/x"}]}'
        )
        done = self.fvp("bad.json")
        self.refused(done, 2, "/entries/0/filname", "filename", "/entries/1/name", "/entries/2/name", "bad.json:2:")
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_two_sources_for_one_destination(self):
        entries = [
            {"name": "a", "source": self.hub.file_url("good.pth"), "dest": "clip/x.pt"},
            {"name": "b", "source": self.hub.file_url("other.pth"), "dest": "clip/x.pt"},
        ]
        self.refused(self.fvp(self.manifest(entries)), 2, "a", "b", "clip/x.pt")
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_unknown_option_and_bad_value(self):
        self.refused(self.fvp("m.json", "--ofline"), 2, "--offline")
        self.refused(self.fvp("m.json", env={"FVPREFETCH_LOCK_TIMEOUT": "soon"}), 2, "FVPREFETCH_LOCK_TIMEOUT")

    # --- sources ---------------------------------------------------------------------------------

    def test_a_source_that_is_nothing(self):
        self.fails({"name": "x", "source": "nothing"}, 5, "nothing", "neither")
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_a_path_that_does_not_exist(self):
        self.fails({"name": "x", "source": "/no/such/file.pth"}, 5, "/no/such/file.pth", "does not exist")

    def test_a_404(self):
        self.fails({"name": "x", "source": self.hub.file_url("absent.pth")}, 5, "404")
        self.assertEqual((self.eval_cache / "models/good.pth").read_bytes(), self.good)

    def test_a_missing_repository_revision_and_file(self):
        self.hub.put("models/org/model/config.json", b"{}")
        token = {"HF_TOKEN": "hf_x"}
        self.fails({"name": "x", "source": "org/absent"}, 5, "org/absent", env=token)
        self.fails({"name": "x", "source": "org/model", "revision": "nope"}, 5, "nope", env=token)
        self.fails({"name": "x", "source": "org/model", "filename": "no.bin"}, 5, "no.bin", env=token)

    def test_a_refused_connection(self):
        # A port that was just free: bound, never listened on, so that nobody else takes it.
        import socket

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/x.pth"
            self.fails({"name": "x", "source": url}, 6, "127.0.0.1")

    def test_a_body_that_is_cut_every_time(self):
        self.hub.put("files/cut.pth", b"\x08" * 100_000)
        self.hub.faults({"path": "/files/cut.pth", "kind": "cut", "after_bytes": 0})
        self.fails({"name": "x", "source": self.hub.file_url("cut.pth")}, 6, "cut.pth")

    def test_a_body_that_is_cut_once_is_fetched_all_the_same(self):
        data = self.hub.put("files/cut.pth", b"\x08" * 100_000)
        self.hub.faults({"path": "/files/cut.pth", "kind": "cut", "after_bytes": 50_000, "times": 1})
        done = self.fvp(self.manifest([{"name": "x", "source": self.hub.file_url("cut.pth")}]))
        self.assert_ok(done)
        self.assertEqual((self.eval_cache / "models/x").read_bytes(), data)

    def test_a_wrong_digest_names_both(self):
        wanted = "0" * 64
        done = self.fails(
            {"name": "x", "source": self.hub.file_url("good.pth"), "sha256": wanted}, 8, wanted,
            harness.sha256(self.good),
        )
        self.assertIn("sha256", done.stderr)

    def test_a_flipped_byte_in_a_hub_file(self):
        self.hub.put("models/org/model/w.safetensors", b"\x09" * 100_000)
        self.hub.faults({"path": "/lfs/*", "kind": "flip", "after_bytes": 1000})
        self.fails({"name": "x", "source": "org/model"}, 8, "w.safetensors")
        blobs = self.hf_cache / "models--org--model/blobs"
        self.assertEqual(list(blobs.iterdir()) if blobs.exists() else [], [])

    def test_a_page_of_html_in_place_of_weights(self):
        self.hub.put("files/page.pth", b"\x0a" * 5000)
        self.hub.faults({"path": "/files/page.pth", "kind": "html"})
        self.fails({"name": "x", "source": self.hub.file_url("page.pth")}, 8, "HTML")

    def test_a_git_lfs_pointer_in_place_of_weights(self):
        self.hub.put("files/pointer.pth", b"\x0b" * 5000)
        self.hub.faults({"path": "/files/pointer.pth", "kind": "lfs_pointer"})
        self.fails({"name": "x", "source": self.hub.file_url("pointer.pth")}, 8, "LFS")

    def test_gated_missing_and_bad_token_are_three_messages(self):
        self.hub.put("models/org/gated/w.bin", b"\x0c" * 5000)
        self.hub.put("models/org/gated/.testhub.json", b'{"gated": true, "token": "hf_good"}')
        entry = {"name": "x", "source": "org/gated"}
        texts = {
            self.fails(entry, 4).stderr,
            self.fails(entry, 4, env={"HF_TOKEN": "hf_other"}).stderr,
        }
        self.assertEqual(len(texts), 2)

    # --- the disk --------------------------------------------------------------------------------

    def test_a_full_disk(self):
        self.hub.put("files/big.pth", os.urandom(3 << 20))
        small = self.dir / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
        self.addCleanup(subprocess.run, ["umount", small], check=True)
        done = self.fvp(
            self.manifest([{"name": "big", "source": self.hub.file_url("big.pth")}]), "--cache-dir", small
        )
        self.refused(done, 9, "big")
        self.assertFalse((small / "models/big").exists())

    def test_a_read_only_cache_that_is_incomplete(self):
        self.eval_cache.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", self.eval_cache], check=True)
        self.addCleanup(subprocess.run, ["umount", self.eval_cache], check=True)
        done = self.fvp(self.manifest([self.good_entry]))
        self.refused(done, 10, str(self.eval_cache))

    # --- offline ---------------------------------------------------------------------------------

    def test_offline_lists_all_that_is_missing_and_asks_nobody(self):
        entries = [self.good_entry, {"name": "m", "source": "org/model"}, {"name": "r", "source": "org/r", "filename": "r.pth"}]
        self.assert_ok(self.fvp(self.manifest([self.good_entry])))
        self.hub.reset()
        done = self.fvp(self.manifest(entries), "--offline")
        self.assert_ok(done, 12)
        for word in ("org/model", "org/r/r.pth"):
            self.assertIn(word, done.stderr)
        self.assertEqual(self.fvp(self.manifest(entries), env={"HF_HUB_OFFLINE": "1"}).returncode, 12)
        self.assertEqual(self.hub.stats()["requests"], 0)

    # --- optional entries, and everybody's exit code -----------------------------------------------

    def test_only_optional_entries_failed_is_exit_3(self):
        entries = [{"name": "x", "source": self.hub.file_url("absent.pth"), "optional": True}, self.good_entry]
        done = self.fvp(self.manifest(entries))
        self.assert_ok(done, 3)
        self.assertEqual(list(self.paths(done.stdout)), ["good.pth"])

    def test_keep_going_finishes_the_rest_and_returns_the_first_failed_code(self):
        entries = [{"name": "x", "source": self.hub.file_url("absent.pth")}, self.good_entry]
        done = self.fvp(self.manifest(entries), "--keep-going")
        self.assert_ok(done, 5)
        self.assertTrue((self.eval_cache / "models/good.pth").exists())

    def test_a_404_in_the_third_of_five_entries_ends_all_of_eight_ranks_alike(self):
        entries = []
        for i in range(5):
            self.hub.put(f"files/{i}.pth", bytes([i + 1]) * 50_000)
            entries.append({"name": f"{i}.pth", "source": self.hub.file_url(f"{i}.pth")})
        entries[2]["source"] = self.hub.file_url("absent.pth")
        begin = time.monotonic()
        done = self.mpirun(8, self.manifest(entries), "--json")
        print(f"8 ranks ended {time.monotonic() - begin:.2f} s after mpirun was started")
        self.assertEqual(done.codes, [5] * 8)
        self.assertEqual(json.loads(done.stdout)["entries"][2]["state"], "failed")
        self.assertEqual(done.stderr.count("error:"), 1)
        self.assertEqual(self.unfinished(), [])


if __name__ == "__main__":
    harness.main()
