"""`fvprefetch exec` and `env`: the job that follows finds what is there, on its node's own disk where that has all of it."""

import shutil

import harness

SHOW = 'echo "$HF_HUB_OFFLINE|$HF_HUB_CACHE|$FASTVIDEO_EVAL_CACHE|$TORCH_HOME"'


class Exec(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.hub.put("models/org/model/weights.safetensors", b"\x01W" * 50_000)
        self.hub.put("files/a.pth", b"\x03U" * 20_000)
        self.path = self.manifest([
            {"name": "model", "source": "org/model"},
            {"name": "a.pth", "source": self.hub.file_url("a.pth")},
            {"name": "alexnet", "source": self.hub.file_url("a.pth"), "dest": "torch/hub/checkpoints/alexnet.pth"},
        ])  # fmt: skip
        self.stage = self.dir / "local disk"  # a path that a shell has to quote
        self.shared = {"HF_HUB_CACHE": self.hf_cache, "FASTVIDEO_EVAL_CACHE": self.eval_cache, "TORCH_HOME": self.eval_cache / "torch"}
        self.staged = {"HF_HUB_CACHE": self.stage / "hub", "FASTVIDEO_EVAL_CACHE": self.stage / "eval", "TORCH_HOME": self.stage / "eval/torch"}

    def fill(self, **caches):
        caches.pop("TORCH_HOME", None)
        self.assert_ok(self.fvp(self.path, env={name: str(path) for name, path in caches.items()}))
        self.hub.reset()

    def line(self, places):
        return "|".join(["1", *map(str, places.values())]) + "\n"

    def check(self, places, *options, env=None):
        """Both commands say so, and neither asks the hub; returns what they tell people."""
        run = self.fvp("exec", self.path, *options, "--", "sh", "-c", SHOW, env=env)
        self.assert_ok(run)
        self.assertEqual(run.stdout, self.line(places), run.stderr)
        told = self.fvp("env", self.path, *options, env=env)
        self.assert_ok(told)
        self.assertEqual(self.run_command(["sh", "-c", told.stdout + SHOW]).stdout, self.line(places), told.stdout)
        self.assertEqual(run.stderr, told.stderr)
        self.assertEqual(self.hub.stats()["requests"], 0)
        return run.stderr

    # --- exec ------------------------------------------------------------------------------------

    def test_it_becomes_the_program_with_its_words_and_its_exit_code(self):
        self.assertEqual(self.check(self.shared), "")
        done = self.fvp("exec", self.path, "--", "sh", "-c", 'printf "%s\\n" "$@"; exit 42', "sh", "--json", "a b", "--", "")
        self.assertEqual((done.returncode, done.stdout), (42, "--json\na b\n--\n\n"))

    def test_its_own_failures_have_codes_that_tell_them_from_the_programs(self):
        for command, code in [(["no-such-program"], 127), ([str(self.dir)], 126), ([self.path], 126)]:
            done = self.fvp("exec", self.path, "--", *command)
            self.assert_ok(done, code)
            self.assertIn(command[0], done.stderr)
        self.assert_ok(self.fvp("exec", self.path), 2)
        self.assert_ok(self.fvp("exec", self.path, "--"), 2)
        self.assert_ok(self.fvp("exec", self.path, "sh"), 2)
        self.assert_ok(self.fvp("exec", "--", "sh"), 2)
        self.assert_ok(self.fvp("exec", "absent.json", "--", "touch", self.dir / "ran"), 5)
        self.assertFalse((self.dir / "ran").exists())

    def test_every_rank_runs_it_and_only_rank_0_prints_exports(self):
        self.assertEqual(self.mpirun(3, "exec", self.path, "--", "sh", "-c", SHOW).stdout, self.line(self.shared) * 3)
        self.assertEqual(len(self.mpirun(3, "env", self.path, "--stage", self.stage).stdout.splitlines()), 4)

    # --- --stage ---------------------------------------------------------------------------------

    def test_what_is_staged_completely_is_used(self):
        self.fill()
        self.fill(**self.staged)
        self.assertEqual(self.check(self.staged, "--stage", self.stage), "")
        self.assertEqual(self.check(self.staged, env={"FVPREFETCH_STAGE": str(self.stage)}), "")

    def test_what_fetch_has_staged_is_found(self):
        self.assert_ok(self.fvp(self.path, "--stage", self.stage))
        self.hub.reset()
        self.assertEqual(self.check(self.staged, "--stage", self.stage), "")

    def test_a_node_without_it_uses_the_shared_caches_and_says_so(self):
        self.fill()
        told = self.check(self.shared, "--stage", self.stage)
        for name in ("model", "a.pth", "alexnet"):
            self.assertIn(f"no complete copy of `{name}`", told)
        self.assertFalse(self.stage.exists())
        self.check(self.shared, "--stage", self.stage, "--quiet")

    def test_a_cache_that_lacks_one_file_is_left_out_alone(self):
        self.fill()
        self.fill(**self.staged)
        shutil.rmtree(next(self.stage.glob("hub/models--*/blobs")))
        told = self.check({**self.staged, "HF_HUB_CACHE": self.hf_cache}, "--stage", self.stage)
        self.assertEqual(told.count("no complete copy"), 1)
        (self.stage / "eval/models/a.pth").unlink()
        self.check({**self.shared, "TORCH_HOME": self.staged["TORCH_HOME"]}, "--stage", self.stage)

    def test_a_cache_that_the_manifest_wants_nothing_from_stays(self):
        self.path = self.manifest([{"name": "a.pth", "source": self.hub.file_url("a.pth")}])
        self.fill(**self.staged)
        self.check({**self.shared, "FASTVIDEO_EVAL_CACHE": self.staged["FASTVIDEO_EVAL_CACHE"]}, "--stage", self.stage)

    def test_an_optional_entry_that_nobody_could_get_keeps_nothing_from_being_used(self):
        missing = {"name": "gone", "source": self.hub.file_url("gone"), "optional": True}
        present = {"name": "a.pth", "source": self.hub.file_url("a.pth")}
        self.path = self.manifest([present])
        self.fill(**self.staged)
        self.path = self.manifest([missing, present])
        used = {**self.shared, "FASTVIDEO_EVAL_CACHE": self.staged["FASTVIDEO_EVAL_CACHE"]}
        self.check(used, "--stage", self.stage)
        (self.eval_cache / "models").mkdir(parents=True)
        (self.eval_cache / "models/gone").write_bytes(b"here")
        self.check(self.shared, "--stage", self.stage)

    def test_without_a_manifest_nobody_knows_what_has_to_be_there(self):
        done = self.fvp("env", "--stage", self.stage)
        self.assert_ok(done, 2)
        self.assertIn("manifest", done.stderr)


if __name__ == "__main__":
    harness.main()
