"""Entries with `unpack`: the archive is fetched privately, and its contents appear whole under the
name, or not at all.
"""

import io
import json
import os
import random
import signal
import stat
import tarfile
import zipfile

import harness

MIB = 1 << 20
HUB_LOAD = """
import importlib.util, os, sys
# What torch.hub.load(repo, name, source="github") does when the folder is there, without torch.
repo, name = sys.argv[1:]
owner, rest = repo.split("/")
folder = os.path.join(os.environ["TORCH_HOME"], "hub", "_".join([owner, *rest.split(":")]))
sys.path.insert(0, folder)
spec = importlib.util.spec_from_file_location("hubconf.py", os.path.join(folder, "hubconf.py"))
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(getattr(module, name)())
"""


def zip_of(members, compression=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def tar_of(*members, mode="w"):
    """Each (name, data), or a TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


class Unpack(harness.EndToEnd):
    dest = "torch/hub/owner_repo_main"

    def setUp(self):
        super().setUp()
        self.tree = self.eval_cache / self.dest
        self.contents = {
            "hubconf.py": b"import helper\ndef answer():\n    return helper.ANSWER\n",
            "helper.py": b"ANSWER = 42\n",
            "data/w.bin": random.Random(1).randbytes(300_000),
        }

    def github(self, contents=None):
        """As GitHub makes them: one top folder."""
        contents = contents or self.contents
        return zip_of({"repo-main/": b"", **{f"repo-main/{name}": data for name, data in contents.items()}})

    def put(self, data, name="code.zip"):
        return self.hub.put("files/" + name, data)

    def entries(self, name="code.zip", **more):
        return [{"name": "code", "source": self.hub.file_url(name), "dest": self.dest,
                 "unpack": True, "strip_components": 1, **more}]  # fmt: skip

    def fetch(self, *args, code=0, entries=None, **kwargs):
        done = self.fvp(self.manifest(entries or self.entries()), *args, **kwargs)
        self.assert_ok(done, code)
        return done

    def report(self, *args, code=0, entries=None, **kwargs):
        return json.loads(self.fetch("--json", *args, code=code, entries=entries, **kwargs).stdout)

    def unpacked(self, root=None):
        root = root or self.tree
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    def private(self):
        return [p for p in self.dir.rglob("*") if p.name.endswith((".fvprefetch-part", ".fvprefetch-unpack"))]

    def listing(self):
        """Names, sizes and times of all of the cache."""
        return {p: (s.st_size, s.st_mtime_ns, s.st_ino) for p in self.eval_cache.rglob("*") for s in [p.lstat()]}

    # --- the usual -------------------------------------------------------------------------------

    def test_cold_then_warm_without_a_request_or_a_write(self):
        data = self.put(self.github())
        done = self.fetch()
        self.assertEqual(self.paths(done.stdout), {"code": str(self.tree)})
        self.assertEqual(self.unpacked(), self.contents)
        self.assertEqual(self.private(), [])  # nor is the archive kept
        self.assertNotIn(data, [p.read_bytes() for p in self.dir.rglob("*") if p.is_file() and self.hub.root not in p.parents])
        self.hub.reset()
        before = self.listing()
        report = self.report()
        (entry,) = report["entries"]
        self.assertEqual((entry["kind"], entry["state"], entry["verified_by"]), ("archive", "hit", "receipt"))
        self.assertEqual((entry["files"], entry["bytes_total"]), (3, sum(map(len, self.contents.values()))))
        self.assertEqual(report["lock"]["kind"], "none")
        self.assertEqual(self.hub.stats()["requests"], 0)
        self.assertEqual(self.listing(), before)

    def test_a_cache_that_cannot_be_written_is_a_hit_offline(self):
        self.put(self.github())
        self.fetch()
        done = self.fetch("--offline", "--lock", "none")
        self.assertEqual(self.paths(done.stdout), {"code": str(self.tree)})

    def test_torch_hub_finds_the_code(self):
        self.put(self.github())
        self.fetch()
        env = {"TORCH_HOME": str(self.eval_cache / "torch")}
        done = self.run_command([harness.oracle_python(), "-c", HUB_LOAD, "owner/repo:main", "answer"], env)
        self.assertEqual(done.stdout, "42\n", done.stderr)
        self.hub.reset()
        self.fetch()  # what Python has compiled beside it does no harm
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_every_kind_of_archive(self):
        files = [(f"top/{name}", data) for name, data in self.contents.items()]
        for name, data in {
            "c.tar": tar_of(*files),
            "c.tar.gz": tar_of(*files, mode="w:gz"),
            "c.tar.xz": tar_of(*files, mode="w:xz"),
            "c.zip": zip_of(dict(files), zipfile.ZIP_STORED),
        }.items():
            with self.subTest(name):
                self.dest = "models/" + name.replace(".", "-")
                self.put(data, name)
                self.fetch(entries=self.entries(name, sha256=harness.sha256(data), size=len(data)))
                self.assertEqual(self.unpacked(self.eval_cache / self.dest), self.contents)

    def test_without_dest_it_is_a_folder_below_models(self):
        self.put(self.github())
        done = self.fetch(entries=[{"name": "code", "source": self.hub.file_url("code.zip"), "unpack": True}])
        self.assertEqual(self.paths(done.stdout)["code"], str(self.eval_cache / "models/code"))
        self.assertTrue((self.eval_cache / "models/code/repo-main/hubconf.py").is_file())

    def test_plan_status_and_verify_speak_of_it(self):
        data = self.put(self.github())
        path = self.manifest(self.entries())
        (planned,) = json.loads(self.fvp("plan", path, "--json").stdout)["entries"]
        self.assertEqual((planned["kind"], planned["state"]), ("archive", "missing"))
        self.assertEqual((planned["path"], planned["bytes_missing"]), (str(self.tree), len(data)))
        self.assertFalse(self.eval_cache.exists())
        self.fetch()
        for command in "plan", "status":
            (planned,) = json.loads(self.fvp(command, path, "--json").stdout)["entries"]
            self.assertEqual(planned["state"], "complete")
            self.assertEqual({f["path"]: f["size"] for f in planned["files"]}, {k: len(v) for k, v in self.contents.items()})
        self.hub.reset()
        (found,) = json.loads(self.fvp("verify", path, "--json").stdout)["entries"]
        self.assertEqual((found["state"], len(found["files"])), ("ok", 3))
        self.assertEqual(self.hub.stats()["requests"], 0)

    # --- what is wrong with the tree -------------------------------------------------------------

    def test_a_missing_or_short_file_brings_all_of_it_again(self):
        self.put(self.github())
        self.fetch()
        (self.tree / "helper.py").unlink()
        done = self.fetch()
        self.assertIn("helper.py is not as it was unpacked", done.stderr)
        self.assertEqual(self.unpacked(), self.contents)
        (self.tree / "data/w.bin").write_bytes(b"short")
        self.fetch()
        self.assertEqual(self.unpacked(), self.contents)
        self.assertEqual(self.private(), [])

    def test_verify_names_the_file_and_repairs_it(self):
        self.put(self.github())
        self.fetch()
        (self.tree / "helper.py").write_bytes(b"ANSWER = 43\n")  # of the same size
        path = self.manifest(self.entries())
        done = self.fvp("verify", path)
        self.assert_ok(done, 8)
        self.assertIn("helper.py has sha256 " + harness.sha256(b"ANSWER = 43\n"), done.stderr)
        self.assert_ok(self.fvp("verify", path, "--repair"))
        self.assertEqual(self.unpacked(), self.contents)

    def test_a_folder_that_somebody_else_made_is_taken_unless_the_manifest_pins_it(self):
        data = self.put(self.github())
        self.tree.mkdir(parents=True)
        (self.tree / "hubconf.py").write_bytes(b"theirs\n")
        (entry,) = self.report()["entries"]
        self.assertEqual((entry["state"], entry["verified_by"]), ("hit", "present"))
        self.assertEqual(self.hub.stats()["requests"], 0)
        self.assertEqual(json.loads(self.fvp("verify", self.manifest(self.entries()), "--json").stdout)["entries"][0]["state"], "unverifiable")
        pinned = self.entries(sha256=harness.sha256(data))
        (entry,) = self.report("--offline", entries=pinned)["entries"]
        self.assertEqual((entry["state"], entry["verified_by"]), ("hit", "unverified"))
        done = self.fetch(entries=pinned)
        self.assertIn("is kept beside it", done.stderr)
        self.assertEqual(self.unpacked(), self.contents)
        (theirs,) = self.tree.parent.glob(self.tree.name + ".replaced-*")  # not ours to remove
        self.assertEqual(self.unpacked(theirs), {"hubconf.py": b"theirs\n"})

    def test_a_file_at_the_place_is_left_alone(self):
        self.put(self.github())
        self.tree.parent.mkdir(parents=True)
        self.tree.write_bytes(b"mine")
        self.assertIn("is no directory", self.fetch(code=2).stderr)
        self.assertEqual(self.tree.read_bytes(), b"mine")

    # --- another archive -------------------------------------------------------------------------

    def test_refresh_replaces_the_tree_and_leaves_none_of_the_old(self):
        self.put(self.github())
        self.fetch()
        newer = {"hubconf.py": b"newer\n", "more/x": b"x"}
        self.put(self.github(newer))
        self.fetch()
        self.assertEqual(self.unpacked(), self.contents)
        before = self.tree.stat().st_ino
        self.fetch("--refresh")
        self.assertEqual(self.unpacked(), newer)
        self.assertEqual(self.private(), [])
        changed = self.tree.stat().st_ino
        self.assertNotEqual(changed, before)
        self.fetch("--refresh")  # the same bytes once more
        self.assertEqual(self.tree.stat().st_ino, changed)
        self.assert_ok(self.fvp("verify", self.manifest(self.entries())))

    def test_where_names_cannot_be_exchanged_the_tree_is_replaced_by_two_renames(self):
        self.put(self.github())
        env = {"LD_PRELOAD": str(harness.BUILD / "tests/shims/librefusing_exchange.so")}
        self.fetch(env=env)
        newer = {"hubconf.py": b"newer\n"}
        self.put(self.github(newer))
        self.fetch("--refresh", env=env)
        self.assertEqual(self.unpacked(), newer)
        self.assertEqual(self.private(), [])

    def test_a_link_at_the_place_gives_way_and_what_it_leads_to_stays(self):
        self.put(self.github())
        theirs = self.dir / "theirs"
        theirs.mkdir()
        (theirs / "hubconf.py").write_bytes(b"theirs\n")
        self.tree.parent.mkdir(parents=True)
        self.tree.symlink_to(theirs)
        self.fetch()
        self.assertTrue(self.tree.is_symlink())  # a hit
        self.fetch("--refresh")
        self.assertFalse(self.tree.is_symlink())
        self.assertEqual(self.unpacked(), self.contents)
        self.assertEqual((theirs / "hubconf.py").read_bytes(), b"theirs\n")
        self.assertEqual([p.is_symlink() for p in self.tree.parent.glob("*.replaced-*")], [True])

    def test_a_replacement_that_was_cut_short_is_done_again(self):
        self.put(self.github())
        self.fetch()
        (receipt,) = (self.eval_cache / ".fvprefetch/receipts").iterdir()
        told = json.loads(receipt.read_text())
        told["files"] = []  # as it is while the names are exchanged
        receipt.write_text(json.dumps(told))
        self.assert_ok(self.fvp("verify", self.manifest(self.entries())), 8)
        (entry,) = self.report()["entries"]
        self.assertEqual(entry["state"], "fetched")
        self.assert_ok(self.fvp("verify", self.manifest(self.entries())))

    def test_what_the_manifest_pins_is_not_asked_for_again(self):
        data = self.put(self.github())
        pinned = self.entries(sha256=harness.sha256(data), size=len(data))
        self.fetch(entries=pinned)
        self.hub.reset()
        self.fetch("--refresh", entries=pinned)
        self.assertEqual(self.hub.stats()["requests"], 0)
        other = self.put(self.github({"hubconf.py": b"other\n"}))
        done = self.fetch(entries=self.entries(sha256=harness.sha256(other)))
        self.assertIn("was unpacked from an archive with sha256 " + harness.sha256(data), done.stderr)
        self.assertEqual(self.unpacked(), {"hubconf.py": b"other\n"})
        self.fetch(code=8, entries=pinned)  # the server has it no more
        self.assertEqual(self.unpacked(), {"hubconf.py": b"other\n"})

    def test_another_strip_components_is_another_tree(self):
        self.put(self.github())
        self.fetch()
        done = self.fetch(entries=self.entries(strip_components=0))
        self.assertIn("with strip_components 1, expected 0", done.stderr)
        self.assertEqual(set(self.unpacked()), {f"repo-main/{name}" for name in self.contents})

    def test_lock_pins_the_archive(self):
        data = self.put(self.github())
        self.fetch()
        path = self.manifest(self.entries())
        self.hub.reset()
        self.assert_ok(self.fvp("lock", path))
        (pinned,) = json.loads((self.dir / "manifest.lock.json").read_text())["entries"]
        self.assertEqual((pinned["sha256"], pinned["size"]), (harness.sha256(data), len(data)))
        self.assert_ok(self.fvp(self.dir / "manifest.lock.json", "--frozen"))
        self.assertEqual(self.hub.stats()["requests"], 0)

    # --- who ends in the middle, and who comes at once ------------------------------------------

    def large(self):
        """Takes a while to unpack, and no time to send."""
        zeros = bytes(200 * MIB)
        members = {f"top/{i}": zeros for i in range(2)}
        data = self.put(zip_of({"top/noise": random.Random(2).randbytes(2 * MIB), **members}), "large.zip")
        return self.entries("large.zip", sha256=harness.sha256(data))

    def killed_while_unpacking(self, number):
        entries = self.large()
        process = self.start(self.manifest(entries))
        self.wait_for("the private folder", lambda: [p for p in self.private() if p.name.endswith("-unpack")])
        process.send_signal(number)
        process.wait(harness.PATIENCE)
        self.assertFalse(self.tree.exists())
        return entries, process.returncode

    def test_killed_in_the_middle_nothing_shows_and_the_next_run_goes_on(self):
        entries, code = self.killed_while_unpacking(signal.SIGKILL)
        self.assertEqual(code, -signal.SIGKILL)
        self.hub.reset()
        (entry,) = self.report(entries=entries)["entries"]
        self.assertEqual((entry["state"], entry["bytes_fetched"]), ("resumed", 0))
        self.assertEqual(self.hub.stats()["body_bytes"], 0)
        self.assertEqual(sorted(p.name for p in self.tree.iterdir()), ["0", "1", "noise"])
        self.assertEqual(self.private(), [])  # what the killed one had unpacked is gone as well

    def test_a_signal_ends_it_soon_and_keeps_the_archive(self):
        entries, code = self.killed_while_unpacking(signal.SIGTERM)
        self.assertEqual(code, 128 + signal.SIGTERM)
        self.assertEqual([p.name[-5:] for p in self.private()], ["-part"])
        (entry,) = self.report(entries=entries)["entries"]
        self.assertEqual((entry["state"], entry["bytes_fetched"]), ("resumed", 0))

    def test_prune_removes_a_private_folder_after_a_day(self):
        _, _ = self.killed_while_unpacking(signal.SIGKILL)
        left = {*self.private(), *self.eval_cache.rglob("partials/*.json")}
        self.assertEqual(len(left), 3)
        self.assertEqual(self.fvp("prune").stdout, "")
        for path in left:
            os.utime(path, (0, 1_000_000_000))
        done = self.fvp("prune")
        self.assert_ok(done)
        self.assertEqual({harness.Path(line) for line in done.stdout.splitlines()}, left)
        self.assertEqual(self.private(), [])

    def test_eight_processes_at_once_unpack_once(self):
        self.put(self.github())
        path = self.manifest(self.entries())
        processes = [self.start(path, "--json") for _ in range(8)]
        reports = [json.loads(p.communicate(timeout=harness.PATIENCE)[0]) for p in processes]
        self.assertEqual([p.returncode for p in processes], [0] * 8)
        self.assertEqual([r["entries"][0]["state"] for r in reports].count("fetched"), 1)
        self.assertEqual(self.hub.stats()["by_path"]["/files/code.zip"]["gets"], 1)
        self.assertEqual(self.unpacked(), self.contents)
        self.assertEqual(self.private(), [])

    def test_four_ranks_get_the_path(self):
        self.put(self.github())
        done = self.mpirun(4, self.manifest(self.entries()))
        self.assertEqual(done.codes, [0] * 4, done.stderr)
        self.assertEqual(self.paths(done.stdout), {"code": str(self.tree)})
        self.assertEqual(self.hub.stats()["by_path"]["/files/code.zip"]["gets"], 1)

    def test_it_is_staged_whole_with_its_links_and_what_is_for_running(self):
        run = tarfile.TarInfo("top/run.sh")
        run.mode, run.size = 0o755, 2
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            archive.addfile(run, io.BytesIO(b"#!"))
            for name, text in self.contents.items():
                info = tarfile.TarInfo("top/" + name)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))
            archive.addfile(special("top/data/again", tarfile.SYMTYPE, "../helper.py"))
        self.put(data.getvalue(), "code.tar")
        manifest = self.manifest(self.entries("code.tar"))
        stage = self.dir / "stage"
        staged = stage / "eval" / self.dest
        done = self.mpirun(2, manifest, "--stage", stage, "--json")
        self.assertEqual(done.codes, [0, 0], done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual((report["entries"][0]["state"], report["entries"][0]["path"]), ("staged", str(staged)))
        for name, text in self.contents.items():
            self.assertEqual((staged / name).read_bytes(), text)
        self.assertEqual(os.readlink(staged / "data/again"), "../helper.py")
        self.assertTrue(os.access(staged / "run.sh", os.X_OK))
        self.assertEqual(os.stat(staged / "helper.py").st_mode & stat.S_IXUSR, 0)
        self.assertEqual([p.name for p in stage.rglob("*") if "fvprefetch-unpack" in p.name], [])

        again = json.loads(self.mpirun(2, manifest, "--stage", stage, "--json").stdout)
        self.assertEqual(again["stage"]["bytes_read"], 0)
        (staged / "helper.py").unlink()
        mended = json.loads(self.mpirun(2, manifest, "--stage", stage, "--json").stdout)
        self.assertGreater(mended["stage"]["bytes_read"], 0)
        self.assertEqual((staged / "helper.py").read_bytes(), self.contents["helper.py"])

    # --- hostile ---------------------------------------------------------------------------------

    def refused(self, data, *words, code=8, name="h.tar", **more):
        self.put(data, name)
        done = self.fetch(code=code, entries=self.entries(name, **more))
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertFalse(self.tree.exists())
        self.assertEqual(self.private(), [])
        self.assertFalse((self.dir / "x").exists())

    def test_hostile_archives_are_refused_and_nothing_of_them_is_put_anywhere(self):
        inside = ("top/a", b"1")
        link, hard = tarfile.SYMTYPE, tarfile.LNKTYPE
        self.refused(tar_of(inside, ("../../../../x", b"1")), "`../../../../x`", '".."')
        self.refused(tar_of(inside, (str(self.dir / "x"), b"1")), "absolute")
        self.refused(zip_of({"top/a": b"1", "top/../../x": b"1"}), "`top/../../x`", name="h.zip")
        self.refused(tar_of(special("top/l", link, "../../x")), "`top/l`", "leads out")
        self.refused(tar_of(special("top/l", link, str(self.dir)), ("top/l/x", b"1")), "`top/l/x`", "link")
        self.refused(tar_of(special("top/p", hard, "/etc/passwd")), "`top/p`", "hard link")
        self.refused(tar_of(inside, special("top/d", tarfile.CHRTYPE)), "`top/d`", "device")
        self.refused(tar_of(inside, special("top/f", tarfile.FIFOTYPE)), "`top/f`", "FIFO")
        self.refused(tar_of(inside, inside), "`top/a`", "twice")

    def test_what_is_no_whole_archive_is_refused(self):
        whole = self.github()
        self.refused(whole[: len(whole) // 2], "cut short", name="h.zip")
        self.refused(tar_of(("top/a", bytes(5000)), mode="w:gz")[:-20], "cut short")
        self.refused(b"\x07weights" * 1000, "neither zip nor tar")
        self.refused(whole, "leaves no file", code=2, name="h.zip", strip_components=7)

    def test_a_bomb_is_refused_before_it_fills_the_disk(self):
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("top/zeros", "w", force_zip64=True) as member:
                for _ in range(1100):
                    member.write(bytes(MIB))
        self.refused(bomb.getvalue(), "over the bound", name="h.zip")

    def test_a_set_user_id_bit_is_dropped(self):
        info = special("top/run", tarfile.REGTYPE)
        info.mode = 0o6755
        self.put(tar_of(info), "s.tar")
        self.fetch(entries=self.entries("s.tar"))
        mode = stat.S_IMODE((self.tree / "run").stat().st_mode)
        self.assertEqual((mode & 0o7000, mode & 0o100), (0, 0o100))

    def test_the_same_server_gets_another_chance_when_it_sends_the_right_archive(self):
        self.refused(tar_of(("../x", b"1")), '".."', name="code.zip")
        self.put(self.github())
        self.fetch()
        self.assertEqual(self.unpacked(), self.contents)


if __name__ == "__main__":
    harness.main()
