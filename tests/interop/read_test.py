"""What we wrote, every other client reads as its own: offline, without a warning, and untouched."""

from pathlib import Path

import interop
from interop import MANY, MODEL, NAMES, SMALL, TOKEN

ENTRIES = [
    {"name": "main", "source": "org/model"},
    {"name": "dev", "source": "org/model", "revision": "dev"},
    {"name": "tag", "source": "org/model", "revision": "v1.0"},
    {"name": "pr", "source": "org/model", "revision": "refs/pr/1"},
    {"name": "names", "source": "org/names"},
    {"name": "many", "source": "org/many"},
    {"name": "renamed", "source": "old/name"},
    {"name": "gated", "source": "org/gated"},
    {"name": "bare", "source": "bare", "repo_type": "model"},
    {"name": "data", "source": "org/data", "repo_type": "dataset"},
    {"name": "space", "source": "org/space", "repo_type": "space"},
]
REPOS = ["bare", "old/name", "org/data", "org/gated", "org/many", "org/model", "org/names", "org/space"]


class OurCache(interop.Interop):
    """One cache for the class, written by us; a test that changes it takes a copy."""

    direction = "ours, read by it"
    cache = None

    def setUp(self):
        super().setUp()
        if self.cache is None:
            cache = self.class_dir / "ours"
            done = self.fvp(self.manifest(ENTRIES), env={"HF_HUB_CACHE": str(cache), "HF_TOKEN": TOKEN})
            self.assert_ok(done)
            type(self).cache = cache
            type(self).folders = self.paths(done.stdout)
            self.hub.reset()


@interop.for_each(interop.PYTHONS, globals())
class Read(OurCache):
    def read_offline(self, name, files, repo, **args):
        """Snapshot and each file by itself, without a request."""
        folder = self.value("snapshot_download", offline=True, repo_id=repo, cache_dir=str(self.cache), **args)
        self.assertEqual(folder, self.folders[name])
        self.assert_content(folder, files)
        for file in files:
            path = self.value(
                "hf_hub_download", offline=True, repo_id=repo, filename=file, cache_dir=str(self.cache), **args
            )
            self.assertEqual(path, f"{folder}/{file}")
        self.assert_no_request()

    def test_main(self):
        self.read_offline("main", MODEL["main"], "org/model")

    def test_a_branch(self):
        self.read_offline("dev", MODEL["dev"], "org/model", revision="dev")

    def test_a_tag(self):
        self.read_offline("tag", MODEL["v1.0"], "org/model", revision="v1.0")

    def test_a_pull_request(self):
        self.read_offline("pr", MODEL["refs/pr/1"], "org/model", revision="refs/pr/1")

    def test_a_commit(self):
        self.read_offline("dev", MODEL["dev"], "org/model", revision=Path(self.folders["dev"]).name)

    def test_names_that_need_quoting_and_empty_files(self):
        self.read_offline("names", NAMES, "org/names")

    def test_three_pages(self):
        self.read_offline("many", {f"part{i % 3}/f{i:02}.txt": b"%d\n" % i for i in range(MANY)}, "org/many")

    def test_a_renamed_repository(self):
        self.read_offline("renamed", MODEL["main"], "old/name")

    def test_a_gated_repository_needs_no_token_any_more(self):
        self.read_offline("gated", SMALL, "org/gated")

    def test_a_repository_without_organisation(self):
        self.read_offline("bare", SMALL, "bare")

    def test_a_dataset(self):
        self.read_offline("data", SMALL, "org/data", repo_type="dataset")

    def test_a_space(self):
        self.read_offline("space", SMALL, "org/space", repo_type="space")

    def test_look_ups_find_what_is_there_and_nothing_else(self):
        def look(name):
            return self.value("try_to_load_from_cache", repo_id="org/model", filename=name, cache_dir=str(self.cache))

        self.assertEqual(look("config.json"), self.folders["main"] + "/config.json")
        self.assertIsNone(look("absent.json"))

    def test_its_scanner_has_no_warning_and_knows_every_repository_and_ref(self):
        scanned = self.value("scan_cache_dir", cache_dir=str(self.cache))
        # 0.x does not know CACHEDIR.TAG, which every client since 1.9 writes, and says so.
        known = [w for w in scanned["warnings"] if "CACHEDIR.TAG" in w]
        self.assertEqual(len(known), 1 if self.client.version.startswith("0.") else 0)
        self.assertEqual(len(scanned["warnings"]), len(known), scanned["warnings"])
        self.assertEqual(sorted(scanned["repos"]), REPOS)
        refs = {self.folders[name]: ref for name, ref in zip(("main", "dev", "tag", "pr"), MODEL)}
        self.assertEqual(scanned["repos"]["org/model"], {Path(f).name: [ref] for f, ref in refs.items()})

    def test_online_it_fetches_no_body_and_changes_nothing(self):
        before = interop.tree(self.cache)
        for revision in MODEL:
            self.value("snapshot_download", repo_id="org/model", revision=revision, cache_dir=str(self.cache))
            self.value(
                "hf_hub_download", repo_id="org/model", filename="config.json", revision=revision, cache_dir=str(self.cache)
            )
        self.assert_no_body()
        self.assertEqual(interop.tree(self.cache), before)

    def test_one_file(self):
        done = self.ours({"source": "org/model", "filename": "sub/dir/more.bin"})
        path = self.value(
            "hf_hub_download", offline=True, repo_id="org/model", filename="sub/dir/more.bin", cache_dir=str(self.hf_cache)
        )
        self.assertEqual(path, self.paths(done.stdout)["it"])
        self.assertEqual(Path(path).read_bytes(), MODEL["main"]["sub/dir/more.bin"])

    def test_what_it_adds_to_a_part_of_ours_is_only_what_is_missing(self):
        self.ours({"source": "org/model", "include": ["*.json"]})
        self.hub.reset()
        folder = self.value("snapshot_download", repo_id="org/model", cache_dir=str(self.hf_cache))
        self.assert_content(folder, MODEL["main"])
        missing = sum(len(data) for path, data in MODEL["main"].items() if not path.endswith(".json"))
        self.assertEqual(self.hub.stats()["body_bytes"], missing)


@interop.for_each((interop.HUB_1, interop.NEWEST), globals())  # 0.x has no verify
class Verify(OurCache):
    def verify(self, repo, *options):
        done = self.run_command(
            [self.client.interpreter().with_name("hf"), "cache", "verify", repo, "--cache-dir", self.cache, *options,
             "--fail-on-missing-files", "--fail-on-extra-files"],
            interop.QUIET,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_hf_cache_verify_of_main(self):
        self.verify("org/model")

    def test_hf_cache_verify_of_a_pull_request(self):
        self.verify("org/model", "--revision", "refs/pr/1")

    def test_hf_cache_verify_of_odd_names(self):
        self.verify("org/names")

    def test_hf_cache_verify_of_a_dataset(self):
        self.verify("org/data", "--repo-type", "dataset")


@interop.for_each((interop.NODE,), globals())
class ReadByNode(OurCache):
    def read_offline(self, name, files, repo):
        for file, data in files.items():
            path = self.value(
                "downloadFileToCacheDir", offline=True, repo=repo, path=file,
                revision=Path(self.folders[name]).name, cacheDir=str(self.cache), hubUrl=self.hub.url,
            )  # fmt: skip
            self.assertEqual(path, f"{self.folders[name]}/{file}")
            self.assertEqual(Path(path).read_bytes(), data)
        self.assert_no_request()

    def read_online(self, name, repo, revision="main"):
        before = interop.tree(self.cache)
        folder = self.value(
            "snapshotDownload", repo=repo, revision=revision, cacheDir=str(self.cache), hubUrl=self.hub.url
        )
        self.assertEqual(folder, self.folders[name])
        self.assert_no_body()
        self.assertEqual(interop.tree(self.cache), before)

    def test_main(self):
        self.read_offline("main", MODEL["main"], "org/model")

    def test_a_pull_request(self):
        self.read_offline("pr", MODEL["refs/pr/1"], "org/model")

    def test_names_that_need_quoting_and_empty_files(self):
        self.read_offline("names", NAMES, "org/names")

    def test_a_dataset(self):
        self.read_offline("data", SMALL, "datasets/org/data")

    def test_its_scanner_has_no_warning_and_knows_every_repository(self):
        scanned = self.value("scanCacheDir", cacheDir=str(self.cache))
        self.assertEqual(scanned["warnings"], [])
        self.assertEqual(sorted(scanned["repos"]), REPOS)

    def test_online_it_fetches_no_body_and_changes_nothing(self):
        self.read_online("main", "org/model")

    def test_online_a_branch(self):
        self.read_online("dev", "org/model", "dev")

    def test_online_a_pull_request(self):
        self.read_online("pr", "org/model", "refs/pr/1")

    def test_online_three_pages(self):
        self.read_online("many", "org/many")

    def test_a_snapshot_without_refs_is_scanned(self):
        self.ours({"source": "org/model", "revision": self.commit("dev")})
        self.assertEqual(self.value("scanCacheDir", cacheDir=str(self.hf_cache))["warnings"], [])


@interop.for_each(interop.RUSTS, globals())
class ReadByRust(OurCache):
    def read(self, name, files, how="cached", **args):
        before = interop.tree(self.cache)
        paths = self.rust(how, self.cache, files=list(files), **args)
        self.assertEqual(paths, [f"{self.folders[name]}/{file}" for file in files])
        self.assertEqual([Path(path).read_bytes() for path in paths], list(files.values()))
        self.assertEqual(interop.tree(self.cache), before)
        if how == "cached":
            self.assert_no_request()
        self.assert_no_body()

    def test_main(self):
        self.read("main", MODEL["main"], revision="main")

    def test_a_branch(self):
        self.read("dev", MODEL["dev"], revision="dev")

    def test_a_tag(self):
        self.read("tag", MODEL["v1.0"], revision="v1.0")

    def test_a_pull_request(self):
        self.read("pr", MODEL["refs/pr/1"], revision="refs/pr/1")

    def test_names_that_need_quoting_and_empty_files(self):
        self.read("names", NAMES, revision="main", repo="org/names")

    def test_a_dataset(self):
        self.read("data", SMALL, revision="main", repo="org/data", repo_type="dataset")

    def test_online_it_fetches_no_body_and_changes_nothing(self):
        self.read("main", MODEL["main"], "get", revision="main")

    def test_online_a_pull_request(self):
        self.read("pr", MODEL["refs/pr/1"], "get", revision="refs/pr/1")


if __name__ == "__main__":
    interop.main()
