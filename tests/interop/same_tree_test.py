"""The same request gives the same cache, path by path: names, link texts, bytes and modes, of blobs,
snapshots, refs and lock files. The differences that we chose are listed here and in the README."""

import unittest

import interop

# Each difference that we chose, by the name that the README has for it.
CHOSEN = {
    "receipts": "what we know of a request lies in <repository>/.fvprefetch/",
    "trees": "trees/<commit>.json is written for each client and request, and as readable as the blobs",
    "cachedir tag": "CACHEDIR.TAG is written for each client, and its second line names us",
    "lock files": "mode 0664 as since 1.4, and never unlinked",
    "refs folder": "made even when it stays empty: the JavaScript scanner wants it",
    "refused": "a request that is refused leaves no ref and no snapshot",
}


def chosen(path, ours, theirs):
    """The name of the chosen difference, or None: then it is a mistake."""
    parts = path.split("/")
    inside = parts[1:2]
    both = ours is not None and theirs is not None
    if inside == [".fvprefetch"] and theirs is None:
        return "receipts"
    if inside == ["trees"] and (theirs is None or (both and ours[2] == theirs[2] and theirs[1] == "0o600")):
        return "trees"
    if path == "CACHEDIR.TAG" and (theirs is None or (both and but_comment(ours) == but_comment(theirs))):
        return "cachedir tag"
    if parts[0] == ".locks" and path.endswith(".lock") and ours == ("file", "0o664", b""):
        if theirs is None or theirs == ("file", "0o644", b""):
            return "lock files"
    if inside == ["refs"] and len(parts) == 2 and theirs is None:
        return "refs folder"
    return None


def short(entry):
    """For a message."""
    return entry and (*entry[:2], entry[2] and entry[2][:50])


def but_comment(tag):
    kind, mode, text = tag
    lines = text.splitlines(keepends=True)
    return kind, mode, lines[:1] + lines[2:]


class Both(interop.Interop):
    direction = "same tree"

    def both(
        self, entry, call="snapshot_download", umask=0o022, code=0, error=None, token=None, settings=(), **args
    ):  # fmt: skip
        """Asks them and us."""
        self.theirs = self.dir / "theirs"
        answer = self.ask(
            call, cache_dir=str(self.theirs), umask=umask, token=token or False, settings=settings, **args
        )
        if error is None:
            self.assertIn("value", answer)
        else:
            self.assertIn(error, answer.get("error", "no error"))
        env = {**dict(settings), **({"HF_TOKEN": token} if token else {})}
        self.ours(entry, "--refresh", code=code, env=env, umask=umask)

    def compare(self):
        ours, theirs = interop.tree(self.hf_cache), interop.tree(self.theirs)
        self.assertTrue(any("/snapshots/" in p and k != "folder" for p, (k, _, _) in theirs.items()), "nothing to compare")
        wrong = [
            f"{path}: ours {short(ours.get(path))}, theirs {short(theirs.get(path))}"
            for path in sorted(ours.keys() | theirs.keys())
            if ours.get(path) != theirs.get(path) and not chosen(path, ours.get(path), theirs.get(path))
        ]
        self.assertEqual(wrong, [])

    def same(self, entry, *args, **kwargs):
        self.both(entry, *args, **kwargs)
        self.compare()

    def assert_nothing_readable(self):
        left = [
            path
            for path, (kind, _, _) in interop.tree(self.hf_cache).items()
            if kind != "folder" and path.split("/")[1:2] in (["refs"], ["snapshots"], ["blobs"])
        ]
        self.assertEqual(left, [])
        if self.hf_cache.exists():
            scanned = self.value("scan_cache_dir", client=interop.NEWEST, cache_dir=str(self.hf_cache))
            self.assertEqual(scanned["warnings"], [])


@interop.for_each((interop.HUB_1, interop.NEWEST), globals())  # 0.x does not know the variable
class WithoutLinks(Both):
    settings = (("HF_HUB_DISABLE_SYMLINKS", "1"),)

    def test_a_snapshot(self):
        self.same({"source": "org/model"}, repo_id="org/model", settings=self.settings)

    def test_a_second_revision_with_the_same_file(self):
        for revision in ("main", "dev"):
            self.both(
                {"source": "org/model", "revision": revision}, repo_id="org/model", revision=revision, settings=self.settings
            )
        self.compare()


@interop.for_each(interop.PYTHONS, globals())
class SameTree(Both):
    def test_a_snapshot_of_main(self):
        self.same({"source": "org/model"}, repo_id="org/model")

    def test_a_branch(self):
        self.same({"source": "org/model", "revision": "dev"}, repo_id="org/model", revision="dev")

    def test_a_tag(self):
        self.same({"source": "org/model", "revision": "v1.0"}, repo_id="org/model", revision="v1.0")

    def test_a_commit(self):
        commit = self.commit("dev")
        self.same({"source": "org/model", "revision": commit}, repo_id="org/model", revision=commit)

    def test_a_pull_request(self):
        self.same({"source": "org/model", "revision": "refs/pr/1"}, repo_id="org/model", revision="refs/pr/1")

    def test_names_that_need_quoting_and_empty_files(self):
        self.same({"source": "org/names"}, repo_id="org/names")

    def test_a_listing_of_three_pages(self):
        self.same({"source": "org/many"}, repo_id="org/many")

    def test_a_renamed_repository_keeps_the_name_that_was_asked_for(self):
        self.same({"source": "old/name"}, repo_id="old/name")

    def test_a_gated_repository_with_the_right_token(self):
        self.same({"source": "org/gated"}, repo_id="org/gated", token=interop.TOKEN)

    def test_a_repository_without_organisation(self):
        self.same({"source": "bare", "repo_type": "model"}, repo_id="bare")

    def test_a_dataset(self):
        self.same({"source": "org/data", "repo_type": "dataset"}, repo_id="org/data", repo_type="dataset")

    def test_a_space(self):
        self.same({"source": "org/space", "repo_type": "space"}, repo_id="org/space", repo_type="space")

    def test_patterns(self):
        self.same(
            {"source": "org/model", "include": ["*.json", "sub/*"], "exclude": ["*.bin"]},
            repo_id="org/model", allow_patterns=["*.json", "sub/*"], ignore_patterns=["*.bin"],
        )  # fmt: skip

    def test_one_small_file(self):
        self.same({"source": "org/model", "filename": "config.json"}, "hf_hub_download", repo_id="org/model", filename="config.json")

    def test_one_nested_lfs_file(self):
        name = "sub/dir/more.bin"
        self.same({"source": "org/model", "filename": name}, "hf_hub_download", repo_id="org/model", filename=name)

    def test_one_file_of_a_pull_request(self):
        self.same(
            {"source": "org/model", "filename": "sub/new.json", "revision": "refs/pr/1"},
            "hf_hub_download", repo_id="org/model", filename="sub/new.json", revision="refs/pr/1",
        )  # fmt: skip

    def test_group_writable(self):
        self.same({"source": "org/model"}, repo_id="org/model", umask=0o002)

    def test_private_modes(self):
        self.same({"source": "org/model"}, repo_id="org/model", umask=0o077)

    def test_two_revisions_share_blobs(self):
        for revision in ("main", "dev"):
            self.both({"source": "org/model", "revision": revision}, repo_id="org/model", revision=revision)
        self.compare()

    def test_a_branch_that_moved(self):
        config = "models/org/moves/config.json"
        for text in (b"one", b"two"):
            self.hub.put(config, text)
            self.both({"source": "org/moves"}, repo_id="org/moves")
        self.compare()
        self.assertEqual(len(list(self.hf_cache.glob("models--org--moves/snapshots/*"))), 2)

    def test_a_gated_repository_without_token(self):
        self.both({"source": "org/gated"}, repo_id="org/gated", code=4, error="GatedRepoError")
        self.assert_nothing_readable()

    def test_a_missing_repository(self):
        self.both({"source": "org/absent"}, repo_id="org/absent", code=5, token="hf_some", error="RepositoryNotFoundError")
        self.assert_nothing_readable()

    def test_a_missing_revision(self):
        self.both(
            {"source": "org/model", "revision": "nope"}, repo_id="org/model", revision="nope", code=5,
            error="RevisionNotFoundError",
        )  # fmt: skip
        self.assert_nothing_readable()

    def test_a_missing_file_is_remembered(self):
        name = "nope.json"
        self.both(
            {"source": "org/model", "filename": name}, "hf_hub_download", repo_id="org/model", filename=name, code=5,
            error="EntryNotFoundError",
        )  # fmt: skip
        place = f"models--org--model/.no_exist/{self.commit()}/{name}"
        theirs = interop.tree(self.theirs)[place]
        self.assertEqual(interop.tree(self.hf_cache).get(place), theirs)
        found = self.value("try_to_load_from_cache", repo_id="org/model", filename=name, cache_dir=str(self.hf_cache))
        self.assertEqual(found, "no_exist")
        # They leave a ref without its snapshot, which their own scanner calls corrupted.
        scanned = self.value("scan_cache_dir", client=interop.NEWEST, cache_dir=str(self.hf_cache))
        self.assertEqual(scanned["warnings"], [])


class Readme(unittest.TestCase):
    def test_the_readme_lists_the_differences(self):
        readme = (interop.harness.TOP / "README.md").read_text()
        self.assertEqual([name for name in CHOSEN if f"| {name} |" not in readme], [])


if __name__ == "__main__":
    interop.main()
