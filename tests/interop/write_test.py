"""What another client wrote is a warm hit for us: no body, no request where the contract allows none,
nothing of theirs touched."""

import json

import interop
from interop import MANY, MODEL, NAMES, SMALL, TOKEN


class TheirCache(interop.Interop):
    direction = "its own, hit for us"

    def hit(self, folder, files, entry, requests, token=None):
        """Our first run (at most `requests` requests), the second (none), and one without network."""
        before = interop.tree(self.hf_cache)
        self.hub.reset()
        env = {"HF_TOKEN": token} if token else None
        done = self.ours(entry, "--json", env=env)
        report = json.loads(done.stdout)["entries"][0]
        self.assertEqual(report["state"], "hit")
        self.assertEqual(report["path"], folder)
        if files is not None:
            self.assert_content(folder, files)
        stats = self.hub.stats()
        self.assertEqual((stats["requests"], stats["body_bytes"]), (requests, 0), stats["by_path"])
        self.hub.reset()
        self.ours(entry)
        self.ours(entry, "--offline")
        self.assert_no_request()
        after = interop.tree(self.hf_cache)
        self.assertEqual({path: after.get(path) for path in before}, before)
        new = [path for path in after.keys() - before.keys() if after[path][0] != "folder"]
        foreign = [p for p in new if p != "CACHEDIR.TAG" and p.split("/")[1] not in (".fvprefetch", "trees")]
        self.assertEqual(foreign, [])  # no lock file either: there was nothing to exclude anyone from

    def offline_at_once(self, folder, entry):
        """Without any run of ours before, and without network."""
        self.hub.reset()
        done = self.ours(entry, "--offline")
        self.assertEqual(str(self.folder_of(done)), folder)
        self.assert_no_request()


@interop.for_each(interop.PYTHONS, globals())
class Write(TheirCache):
    def pages(self, of=1):
        """Requests that our first look may send: none when their listing is there (since 1.22)."""
        return 0 if self.client.release >= (1, 22) else of

    def snapshot(self, files, entry, pages=1, **args):
        folder = self.value("snapshot_download", cache_dir=str(self.hf_cache), **args)
        self.hit(folder, files, entry, self.pages(pages))

    def test_main(self):
        self.snapshot(MODEL["main"], {"source": "org/model"}, repo_id="org/model")

    def test_a_branch(self):
        self.snapshot(MODEL["dev"], {"source": "org/model", "revision": "dev"}, repo_id="org/model", revision="dev")

    def test_a_tag(self):
        self.snapshot(MODEL["v1.0"], {"source": "org/model", "revision": "v1.0"}, repo_id="org/model", revision="v1.0")

    def test_a_pull_request(self):
        self.snapshot(
            MODEL["refs/pr/1"], {"source": "org/model", "revision": "refs/pr/1"}, repo_id="org/model", revision="refs/pr/1"
        )

    def test_a_commit(self):
        commit = self.commit("dev")
        self.snapshot(MODEL["dev"], {"source": "org/model", "revision": commit}, repo_id="org/model", revision=commit)

    def test_names_that_need_quoting_and_empty_files(self):
        self.snapshot(NAMES, {"source": "org/names"}, repo_id="org/names")

    def test_three_pages(self):
        self.snapshot(None, {"source": "org/many"}, pages=3, repo_id="org/many")

    def test_a_renamed_repository(self):
        # Each page of a renamed repository is asked for twice: the old name redirects to the new one.
        self.snapshot(MODEL["main"], {"source": "old/name"}, pages=2, repo_id="old/name")

    def test_a_gated_repository(self):
        folder = self.value("snapshot_download", repo_id="org/gated", token=TOKEN, cache_dir=str(self.hf_cache))
        # The Hub masks hashes there, and a listing with a masked hash counts for nobody.
        self.hit(folder, SMALL, {"source": "org/gated"}, 1, TOKEN)

    def test_a_repository_without_organisation(self):
        self.snapshot(SMALL, {"source": "bare", "repo_type": "model"}, repo_id="bare")

    def test_a_dataset(self):
        self.snapshot(SMALL, {"source": "org/data", "repo_type": "dataset"}, repo_id="org/data", repo_type="dataset")

    def test_a_space(self):
        self.snapshot(SMALL, {"source": "org/space", "repo_type": "space"}, repo_id="org/space", repo_type="space")

    def test_patterns(self):
        files = {path: data for path, data in MODEL["main"].items() if path.endswith(".json")}
        self.snapshot(
            files, {"source": "org/model", "include": ["*.json"]}, repo_id="org/model", allow_patterns=["*.json"]
        )

    def test_one_file(self):
        name = "sub/dir/more.bin"
        path = self.value("hf_hub_download", repo_id="org/model", filename=name, cache_dir=str(self.hf_cache))
        # Their look-up of one file leaves no listing behind.
        self.hit(path, None, {"source": "org/model", "filename": name}, requests=1)

    def test_offline_at_once(self):
        folder = self.value("snapshot_download", repo_id="org/model", cache_dir=str(self.hf_cache))
        self.offline_at_once(folder, {"source": "org/model"})

    def test_a_hub_that_cannot_be_reached_is_as_good_as_offline(self):
        folder = self.value("snapshot_download", repo_id="org/model", cache_dir=str(self.hf_cache))
        nobody_listens = {"HF_ENDPOINT": "http://127.0.0.1:1"}
        done = self.ours({"source": "org/model"}, "--retries", "0", env=nobody_listens)
        self.assertEqual(str(self.folder_of(done)), folder)

    def test_offline_at_once_one_file(self):
        path = self.value("hf_hub_download", repo_id="org/model", filename="config.json", cache_dir=str(self.hf_cache))
        self.offline_at_once(path, {"source": "org/model", "filename": "config.json"})

    def test_offline_three_pages(self):
        folder = self.value("snapshot_download", repo_id="org/many", cache_dir=str(self.hf_cache))
        self.offline_at_once(folder, {"source": "org/many"})
        self.assertEqual(len([p for p in self.hf_cache.rglob("f*.txt")]), MANY)

    def test_what_we_add_to_a_part_of_theirs_is_only_what_is_missing(self):
        self.value("snapshot_download", repo_id="org/model", allow_patterns=["*.json"], cache_dir=str(self.hf_cache))
        before = interop.tree(self.hf_cache)
        self.hub.reset()
        done = self.ours({"source": "org/model"})
        self.assert_content(self.folder_of(done), MODEL["main"])
        missing = sum(len(data) for path, data in MODEL["main"].items() if not path.endswith(".json"))
        self.assertEqual(self.hub.stats()["body_bytes"], missing)
        after = interop.tree(self.hf_cache)
        self.assertEqual({path: after.get(path) for path in before}, before)


@interop.for_each((interop.NODE,), globals())
class WriteByNode(TheirCache):
    def snapshot(self, files, entry, pages=1, **args):
        folder = self.value("snapshotDownload", cacheDir=str(self.hf_cache), hubUrl=self.hub.url, **args)
        self.hit(folder, files, entry, pages)

    def test_main(self):
        self.snapshot(MODEL["main"], {"source": "org/model"}, repo="org/model")

    def test_a_branch(self):
        self.snapshot(MODEL["dev"], {"source": "org/model", "revision": "dev"}, repo="org/model", revision="dev")

    def test_a_pull_request(self):
        self.snapshot(
            MODEL["refs/pr/1"], {"source": "org/model", "revision": "refs/pr/1"}, repo="org/model", revision="refs/pr/1"
        )

    def test_three_pages(self):
        self.snapshot(None, {"source": "org/many"}, pages=3, repo="org/many")

    def test_a_dataset(self):
        self.snapshot(SMALL, {"source": "org/data", "repo_type": "dataset"}, repo="datasets/org/data")

    def test_a_gated_repository(self):
        folder = self.value(
            "snapshotDownload", cacheDir=str(self.hf_cache), hubUrl=self.hub.url, repo="org/gated", accessToken=TOKEN
        )
        self.hit(folder, SMALL, {"source": "org/gated"}, 1, TOKEN)

    def test_offline_at_once(self):
        folder = self.value("snapshotDownload", repo="org/model", cacheDir=str(self.hf_cache), hubUrl=self.hub.url)
        self.offline_at_once(folder, {"source": "org/model"})

    def test_one_file_of_a_commit(self):
        # It writes no ref: only who names the commit finds the file.
        commit = self.commit()
        path = self.value(
            "downloadFileToCacheDir", repo="org/model", path="config.json", cacheDir=str(self.hf_cache), hubUrl=self.hub.url
        )
        self.hit(path, None, {"source": "org/model", "revision": commit, "filename": "config.json"}, requests=1)


@interop.for_each(interop.RUSTS, globals())
class WriteByRust(TheirCache):
    """1.x takes its bytes over Xet where the Hub offers it, and this hub does not speak it: so from a
    repository as before Xet."""

    repo = "org/plain"

    def snapshot(self, files, entry, revision="main", **args):
        paths = self.rust("get", self.hf_cache, revision, list(files), **{"repo": self.repo, **args})
        folder = paths[0][: -len(list(files)[0]) - 1]
        self.hit(folder, files, {"source": self.repo, **entry}, 1)

    def test_main(self):
        self.snapshot(MODEL["main"], {})

    def test_a_branch(self):
        self.snapshot(MODEL["dev"], {"revision": "dev"}, revision="dev")

    def test_a_pull_request(self):
        self.snapshot(MODEL["refs/pr/1"], {"revision": "refs/pr/1"}, revision="refs/pr/1")

    def test_a_dataset(self):
        data = "org/plaindata"
        self.snapshot(SMALL, {"source": data, "repo_type": "dataset"}, repo=data, repo_type="dataset")

    def test_one_file(self):
        path = self.rust("get", self.hf_cache, "main", ["config.json"], self.repo)[0]
        self.hit(path, None, {"source": self.repo, "filename": "config.json"}, 1)

    def test_offline_at_once(self):
        path = self.rust("get", self.hf_cache, "main", list(MODEL["main"]), self.repo)[0]
        self.offline_at_once(path[: -len("/config.json")], {"source": self.repo})


if __name__ == "__main__":
    interop.main()
