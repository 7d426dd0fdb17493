#!/usr/bin/env python3
"""The test hub against its contract: the wire format of huggingface.co, plain files, counters, faults
and the demo command. Run as: testhub_test.py PATH_OF_TESTHUB [unittest arguments]
"""

import concurrent.futures
import gzip
import hashlib
import http.client
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import urllib.parse
import zipfile

TESTHUB = ""
DEADLINE_S = 30


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer_of(data):
    digest = hashlib.sha256(data).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n".encode()


def noise(name, size):
    out = b""
    while len(out) < size:
        out += hashlib.sha512(f"{name} {len(out)}".encode()).digest()
    return out[:size]


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


class Answer:
    def __init__(self, response, body):
        self.status = response.status
        self.headers = response.headers
        self.body = body

    def json(self):
        return json.loads(self.body)


class Hub:
    """A `testhub serve` process; ends with the test."""

    def __init__(self, root, *options):
        self.port_file = pathlib.Path(root).parent / "hub.json"
        self.process = subprocess.Popen(
            [TESTHUB, "serve", "--root", root, "--port-file", self.port_file, *options],
            stderr=subprocess.PIPE,
            text=True,
        )
        # The line on stderr comes after the port file: nothing to poll.
        self.banner = self.process.stderr.readline()
        ports = json.loads(self.port_file.read_text())
        self.url, self.cdn_url, self.pid = ports["url"], ports["cdn_url"], ports["pid"]

    def stop(self, signum=signal.SIGTERM):
        """Raises when it did not end by itself or had something to say: a sanitizer's report."""
        if self.process.stderr.closed:
            return
        self.process.send_signal(signum)
        _, complaints = self.process.communicate(timeout=DEADLINE_S)
        if self.process.returncode != 0 or complaints:
            raise AssertionError(f"testhub ended with {self.process.returncode}: {complaints}")

    def request(self, method, target, headers=None, body=None):
        """`target` is a path on the hub or an absolute address. Redirects are not followed."""
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(self.url, target))
        connection = http.client.HTTPConnection(parts.netloc, timeout=DEADLINE_S)
        try:
            path = parts.path + ("?" + parts.query if parts.query else "")
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response, response.read())
        finally:
            connection.close()

    def get(self, target, **headers):
        return self.request("GET", target, {k.replace("_", "-"): v for k, v in headers.items()})

    def head(self, target, **headers):
        return self.request("HEAD", target, {k.replace("_", "-"): v for k, v in headers.items()})

    def stats(self):
        return self.get("/_testhub/stats").json()

    def set_faults(self, *faults):
        answer = self.request("POST", "/_testhub/faults", body=json.dumps(faults))
        assert answer.status == 200, answer.body


class HubCase(unittest.TestCase):
    OPTIONS = ()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name) / "root"
        self.root.mkdir()
        self.fill()
        self.hub = Hub(self.root, *self.OPTIONS)
        self.addCleanup(self.hub.stop)

    def fill(self):
        pass


WEIGHTS = noise("weights", 300_000)
CONFIG = b'{"hidden_size": 8}\n'
NESTED = b"nested\n"


class ModelCase(HubCase):
    def fill(self):
        model = self.root / "models/org/name"
        write(model / "config.json", CONFIG)
        write(model / "model.safetensors", WEIGHTS)
        write(model / "sub/deep/a b.txt", NESTED)
        write(self.root / "files/dir/weights.pth", WEIGHTS)

    def commit(self):
        return self.hub.get("/api/models/org/name").json()["sha"]


class Api(ModelCase):
    def test_repository_info_names_commit_and_siblings(self):
        answer = self.hub.get("/api/models/org/name")
        self.assertEqual(answer.status, 200)
        info = answer.json()
        self.assertEqual(info["id"], "org/name")
        self.assertRegex(info["sha"], "^[0-9a-f]{40}$")
        self.assertEqual(
            [s["rfilename"] for s in info["siblings"]],
            ["config.json", "model.safetensors", "sub/deep/a b.txt"],
        )
        self.assertFalse(info["gated"])
        self.assertFalse(info["private"])

    def test_blobs_add_digests_under_their_api_names(self):
        info = self.hub.get("/api/models/org/name?blobs=true").json()
        config, weights, _ = info["siblings"]
        self.assertEqual(config["blobId"], git_sha1(CONFIG))
        self.assertNotIn("lfs", config)
        self.assertEqual(weights["lfs"]["sha256"], hashlib.sha256(WEIGHTS).hexdigest())
        self.assertEqual(weights["lfs"]["size"], len(WEIGHTS))

    def test_revision_by_branch_and_by_commit(self):
        by_branch = self.hub.get("/api/models/org/name/revision/main").json()
        by_commit = self.hub.get(f"/api/models/org/name/revision/{by_branch['sha']}").json()
        self.assertEqual(by_branch, by_commit)

    def test_commit_follows_the_content_and_the_old_one_stays_known(self):
        before = self.commit()
        write(self.root / "models/org/name/new.txt", "new")
        after = self.commit()
        self.assertNotEqual(before, after)
        self.assertEqual(self.hub.get(f"/api/models/org/name/revision/{before}").json()["sha"], before)
        (self.root / "models/org/name/new.txt").unlink()
        self.assertEqual(self.commit(), before)

    def test_tree_tells_files_and_directories_with_digests(self):
        answer = self.hub.get("/api/models/org/name/tree/main?recursive=true&expand=false")
        entries = {entry["path"]: entry for entry in answer.json()}
        self.assertNotIn("Link", answer.headers)
        self.assertEqual(
            entries["config.json"],
            {"type": "file", "oid": git_sha1(CONFIG), "size": len(CONFIG), "path": "config.json"},
        )
        weights = entries["model.safetensors"]
        pointer = pointer_of(WEIGHTS)
        self.assertEqual(weights["oid"], git_sha1(pointer))
        self.assertEqual(
            weights["lfs"],
            {
                "oid": hashlib.sha256(WEIGHTS).hexdigest(),
                "size": len(WEIGHTS),
                "pointerSize": len(pointer),
            },
        )
        self.assertRegex(weights["xetHash"], "^[0-9a-f]{64}$")
        self.assertNotEqual(weights["xetHash"], weights["lfs"]["oid"])
        self.assertEqual(entries["sub"]["type"], "directory")
        self.assertEqual(entries["sub/deep"]["type"], "directory")
        self.assertIn("sub/deep/a b.txt", entries)

    def test_tree_of_a_folder_without_recursion(self):
        top = self.hub.get("/api/models/org/name/tree/main").json()
        self.assertEqual([e["path"] for e in top], ["config.json", "model.safetensors", "sub"])
        sub = self.hub.get("/api/models/org/name/tree/main/sub").json()
        self.assertEqual([e["path"] for e in sub], ["sub/deep"])

    def test_paths_info_tells_of_the_paths_that_are_there(self):
        body = json.dumps({"paths": ["model.safetensors", "absent", "sub/deep/a b.txt"], "expand": True})
        told = self.hub.request("POST", "/api/models/org/name/paths-info/main", body=body).json()
        self.assertEqual([entry["path"] for entry in told], ["model.safetensors", "sub/deep/a b.txt"])
        self.assertEqual(told[0]["lfs"]["oid"], hashlib.sha256(WEIGHTS).hexdigest())
        self.assertEqual(told[1]["oid"], git_sha1(NESTED))
        self.assertEqual({entry["lastCommit"]["id"] for entry in told}, {self.commit()})

    def test_paths_info_without_paths_is_refused(self):
        self.assertEqual(self.hub.request("POST", "/api/models/org/name/paths-info/main", body="{}").status, 400)

    def test_branches_are_listed(self):
        branches = self.hub.get("/api/models/org/name/refs").json()["branches"]
        self.assertEqual([(b["name"], b["targetCommit"]) for b in branches], [("main", self.commit())])


class Pages(HubCase):
    OPTIONS = ("--page-size", "100")

    def fill(self):
        for i in range(250):
            write(self.root / f"models/org/many/f{i:03}.txt", str(i))

    def test_pages_are_linked_by_absolute_address_until_the_last(self):
        target = "/api/models/org/many/tree/main?recursive=true&expand=false"
        paths, sizes = [], []
        while target:
            answer = self.hub.get(target)
            sizes.append(len(answer.json()))
            paths += [entry["path"] for entry in answer.json()]
            link = re.fullmatch(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
            target = link and link.group(1)
            if target:
                self.assertTrue(target.startswith(self.hub.url + "/api/"))
                self.assertIn("limit=100&cursor=", target)
                self.assertIn("recursive=true", target)
        self.assertEqual(sizes, [100, 100, 50])
        self.assertEqual(paths, [f"f{i:03}.txt" for i in range(250)])

    def test_expand_makes_pages_of_fifty(self):
        answer = self.hub.get("/api/models/org/many/tree/main?recursive=true&expand=true")
        self.assertEqual(len(answer.json()), 50)

    def test_a_broken_cursor_is_refused(self):
        self.assertEqual(self.hub.get("/api/models/org/many/tree/main?cursor=%21").status, 400)


class Resolve(ModelCase):
    SMALL = "/org/name/resolve/main/config.json"
    LFS = "/org/name/resolve/main/model.safetensors"

    def test_small_file_is_a_relative_307_to_the_resolve_cache(self):
        answer = self.hub.head(self.SMALL)
        commit = self.commit()
        self.assertEqual(answer.status, 307)
        path, query = answer.headers["Location"].split("?")
        self.assertEqual(path, f"/api/resolve-cache/models/org/name/{commit}/config.json")
        self.assertEqual(
            query,
            "%2Forg%2Fname%2Fresolve%2Fmain%2Fconfig.json=&etag=%22" + git_sha1(CONFIG) + "%22",
        )
        self.assertEqual(answer.headers["X-Repo-Commit"], commit)
        self.assertEqual(answer.headers["X-Linked-Etag"], f'"{git_sha1(CONFIG)}"')
        self.assertIsNone(answer.headers["X-Linked-Size"])

    def test_resolve_cache_serves_the_bytes_with_or_without_the_query(self):
        location = self.hub.head(self.SMALL).headers["Location"]
        for target in (location, location.split("?")[0]):
            answer = self.hub.get(target)
            self.assertEqual((answer.status, answer.body), (200, CONFIG))
            self.assertEqual(answer.headers["ETag"], f'"{git_sha1(CONFIG)}"')
            self.assertEqual(answer.headers["Content-Length"], str(len(CONFIG)))
            self.assertEqual(answer.headers["Accept-Ranges"], "bytes")
            self.assertEqual(answer.headers["X-Repo-Commit"], self.commit())

    def test_known_etag_gives_304(self):
        location = self.hub.head(self.SMALL).headers["Location"]
        answer = self.hub.get(location, If_None_Match=f'W/"{git_sha1(CONFIG)}"')
        self.assertEqual((answer.status, answer.body), (304, b""))
        self.assertEqual(self.hub.get(location, If_None_Match='"other"').status, 200)

    def test_lfs_file_is_an_absolute_302_to_the_second_host(self):
        answer = self.hub.head(self.LFS)
        commit = self.commit()
        sha256 = hashlib.sha256(WEIGHTS).hexdigest()
        self.assertEqual(answer.status, 302)
        self.assertTrue(
            answer.headers["Location"].startswith(f"{self.hub.cdn_url}/lfs/models/org/name/{sha256}?")
        )
        self.assertIn("&Signature=", answer.headers["Location"])
        self.assertEqual(answer.headers["X-Repo-Commit"], commit)
        self.assertEqual(answer.headers["X-Linked-Size"], str(len(WEIGHTS)))
        self.assertEqual(answer.headers["X-Linked-Etag"], f'"{sha256}"')
        self.assertRegex(answer.headers["X-Xet-Hash"], "^[0-9a-f]{64}$")
        self.assertRegex(
            answer.headers["Link"],
            f'^<[^>]*/xet-read-token/{commit}>; rel="xet-auth", '
            '<[^>]*/reconstructions/[0-9a-f]{64}>; rel="xet-reconstruction-info"$',
        )
        # The length of the redirect's own text, a trap for whoever takes it for the file's.
        self.assertNotIn(answer.headers["Content-Length"], ("0", str(len(WEIGHTS))))
        self.assertEqual(len(self.hub.get(self.LFS).body), int(answer.headers["Content-Length"]))

    def test_cdn_serves_whole_files_and_ranges_under_the_xet_hash(self):
        redirect = self.hub.head(self.LFS)
        location = redirect.headers["Location"]
        whole = self.hub.get(location)
        self.assertEqual((whole.status, whole.body), (200, WEIGHTS))
        self.assertEqual(whole.headers["ETag"], f'"{redirect.headers["X-Xet-Hash"]}"')
        part = self.hub.get(location, Range="bytes=100-199")
        self.assertEqual((part.status, part.body), (206, WEIGHTS[100:200]))
        self.assertEqual(part.headers["Content-Range"], f"bytes 100-199/{len(WEIGHTS)}")
        self.assertEqual(part.headers["Content-Length"], "100")

    def test_cdn_refuses_a_token_and_remembers_it(self):
        location = self.hub.head(self.LFS).headers["Location"]
        self.assertEqual(self.hub.get(location, Authorization="Bearer hf_x").status, 400)
        self.assertEqual(self.hub.stats()["cdn_authorization_seen"], 1)

    def test_cdn_refuses_an_address_without_its_signature(self):
        location = self.hub.head(self.LFS).headers["Location"]
        self.assertEqual(self.hub.get(location.split("?")[0]).status, 403)
        self.assertEqual(self.hub.get(location.replace("Signature=", "Signature=0")).status, 403)

    def test_signed_address_survives_a_restart_of_the_hub(self):
        location = self.hub.head(self.LFS).headers["Location"]
        self.hub.stop()
        self.hub = Hub(self.root)
        self.addCleanup(self.hub.stop)
        path = location[len(location.split("/lfs/")[0]) :]
        self.assertEqual(self.hub.get(self.hub.cdn_url + path).body, WEIGHTS)

    def test_names_that_need_quoting(self):
        answer = self.hub.head("/org/name/resolve/main/sub/deep/a%20b.txt")
        self.assertEqual(answer.status, 307)
        self.assertEqual(self.hub.get(answer.headers["Location"]).body, NESTED)

    def test_resolve_by_commit(self):
        self.assertEqual(self.hub.head(f"/org/name/resolve/{self.commit()}/config.json").status, 307)

    def test_head_has_headers_and_no_body(self):
        location = self.hub.head(self.SMALL).headers["Location"]
        answer = self.hub.head(location)
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["Content-Length"], str(len(CONFIG)))


class Repositories(HubCase):
    def fill(self):
        models = self.root / "models"
        for name in ("gated", "private", "disabled", "plain-lfs", "branches", "listed"):
            write(models / "org" / name / "config.json", CONFIG)
            write(models / "org" / name / "w.bin", WEIGHTS)
        self.settings("org/gated", gated=True, token="hf_good")
        self.settings("org/private", private=True, token="hf_good")
        self.settings("org/disabled", disabled=True)
        self.settings("org/plain-lfs", xet=False)
        self.settings("org/listed", lfs=["*.json"])
        write(models / "org/branches/next/config.json", "next")
        self.settings("org/branches", branches={"main": ".", "refs/pr/1": "next", "1" * 40: "."})
        self.settings("gpt2", renamed_to="openai-community/gpt2")
        write(models / "openai-community/gpt2/config.json", CONFIG)
        write(models / "bert-base-uncased/config.json", CONFIG)
        write(self.root / "datasets/org/data/train.txt", "data")
        write(self.root / "spaces/org/app/app.py", "app")

    def settings(self, repo, **values):
        write(self.root / "models" / repo / ".testhub.json", json.dumps(values))

    def assert_error(self, answer, status, code, message=None):
        self.assertEqual(answer.status, status)
        self.assertEqual(answer.headers["X-Error-Code"], code)
        if message:
            self.assertEqual(answer.headers["X-Error-Message"], message)

    def test_missing_repository_is_401_for_strangers_and_404_for_users(self):
        for target in ("/api/models/org/nope", "/org/nope/resolve/main/config.json"):
            stranger = self.hub.get(target)
            self.assert_error(stranger, 401, None, "Invalid username or password.")
            user = self.hub.get(target, Authorization="Bearer hf_user")
            self.assert_error(user, 404, "RepoNotFound")

    def test_an_organisation_is_no_repository(self):
        self.assertEqual(self.hub.get("/api/models/org").status, 401)

    def test_unknown_token_is_refused_everywhere(self):
        answer = self.hub.get("/api/models/bert-base-uncased", Authorization="Bearer hf_invalid")
        self.assert_error(answer, 401, None, "Invalid credentials in Authorization header")

    def test_missing_file_names_the_commit(self):
        answer = self.hub.head("/bert-base-uncased/resolve/main/nope.json")
        self.assert_error(answer, 404, "EntryNotFound")
        commit = self.hub.get("/api/models/bert-base-uncased").json()["sha"]
        self.assertEqual(answer.headers["X-Repo-Commit"], commit)

    def test_bad_revision(self):
        for target in (
            "/bert-base-uncased/resolve/badrev/config.json",
            "/api/models/bert-base-uncased/revision/badrev",
            "/api/models/bert-base-uncased/tree/badrev",
        ):
            self.assert_error(self.hub.get(target), 404, "RevisionNotFound", "Invalid rev id: badrev")

    def test_gated_repository(self):
        target = "/org/gated/resolve/main/w.bin"
        self.assert_error(self.hub.head(target), 401, "GatedRepo")
        self.assert_error(self.hub.head(target, Authorization="Bearer hf_other"), 403, "GatedRepo")
        self.assertEqual(self.hub.head(target, Authorization="Bearer hf_good").status, 302)

    def test_gated_metadata_is_public_with_masked_xet_hash(self):
        self.assertEqual(self.hub.get("/api/models/org/gated").json()["gated"], "manual")
        tree = self.hub.get("/api/models/org/gated/tree/main").json()
        self.assertEqual([e.get("xetHash") for e in tree], [None, "*" * 64])

    def test_private_repository_is_missing_without_its_token(self):
        target = "/api/models/org/private"
        self.assert_error(self.hub.get(target), 401, None)
        self.assert_error(self.hub.get(target, Authorization="Bearer hf_other"), 404, "RepoNotFound")
        self.assertEqual(self.hub.get(target, Authorization="Bearer hf_good").status, 200)

    def test_disabled_repository(self):
        message = "Access to this resource is disabled."
        self.assert_error(self.hub.get("/api/models/org/disabled"), 403, None, message)

    def test_renamed_repository_is_a_relative_307(self):
        answer = self.hub.get("/api/models/gpt2?blobs=true")
        self.assertEqual(answer.status, 307)
        self.assertEqual(answer.headers["Location"], "/api/models/openai-community/gpt2?blobs=true")
        answer = self.hub.head("/gpt2/resolve/main/config.json")
        self.assertEqual(
            answer.headers["Location"], "/openai-community/gpt2/resolve/main/config.json"
        )

    def test_id_without_organisation(self):
        self.assertEqual(self.hub.get("/api/models/bert-base-uncased").json()["id"], "bert-base-uncased")
        answer = self.hub.head("/bert-base-uncased/resolve/main/config.json")
        self.assertEqual(self.hub.get(answer.headers["Location"]).body, CONFIG)

    def test_datasets_and_spaces(self):
        self.assertEqual(self.hub.get("/api/datasets/org/data").json()["id"], "org/data")
        answer = self.hub.head("/datasets/org/data/resolve/main/train.txt")
        self.assertTrue(answer.headers["Location"].startswith("/api/resolve-cache/datasets/org/data/"))
        self.assertEqual(self.hub.get(answer.headers["Location"]).body, b"data")
        self.assertEqual(self.hub.head("/spaces/org/app/resolve/main/app.py").status, 307)

    def test_settings_are_never_served(self):
        self.assert_error(self.hub.head("/org/gated/resolve/main/.testhub.json",
                                        Authorization="Bearer hf_good"), 404, "EntryNotFound")

    def test_lfs_before_xet_has_no_xet_headers(self):
        answer = self.hub.head("/org/plain-lfs/resolve/main/w.bin")
        self.assertEqual(answer.status, 302)
        self.assertIsNone(answer.headers["X-Xet-Hash"])
        self.assertIsNone(answer.headers["Link"])

    def test_lfs_patterns_of_the_repository(self):
        self.assertEqual(self.hub.head("/org/listed/resolve/main/config.json").status, 302)
        self.assertEqual(self.hub.head("/org/listed/resolve/main/w.bin").status, 307)

    def test_branch_with_slashes_encoded_or_not(self):
        for revision in ("refs%2Fpr%2F1", "refs/pr/1"):
            answer = self.hub.head(f"/org/branches/resolve/{revision}/config.json")
            self.assertEqual(answer.status, 307)
            self.assertEqual(self.hub.get(answer.headers["Location"]).body, b"next")

    def test_branch_folder_is_no_part_of_main(self):
        paths = [e["path"] for e in self.hub.get("/api/models/org/branches/tree/main").json()]
        self.assertEqual(paths, ["config.json", "w.bin"])

    def test_fixed_commit(self):
        answer = self.hub.get(f"/api/models/org/branches/revision/{'1' * 40}")
        self.assertEqual(answer.json()["sha"], "1" * 40)


class Plain(HubCase):
    def fill(self):
        write(self.root / "files/dir/weights.pth", WEIGHTS)
        write(self.root / "files/empty.bin", b"")
        write(self.root / "plain/host.example/a/b.pt", CONFIG)
        write(self.root / "secret", "secret")

    FILE = "/files/dir/weights.pth"

    def test_whole_file(self):
        answer = self.hub.get(self.FILE)
        self.assertEqual((answer.status, answer.body), (200, WEIGHTS))
        self.assertEqual(answer.headers["Content-Length"], str(len(WEIGHTS)))
        self.assertRegex(answer.headers["ETag"], '^"[0-9a-f]+-[0-9a-f]+"$')
        self.assertRegex(answer.headers["Last-Modified"], "GMT$")
        self.assertEqual(answer.headers["Content-Type"], "application/octet-stream")

    def test_by_host(self):
        self.assertEqual(self.hub.get("/plain/host.example/a/b.pt?token=1").body, CONFIG)

    def test_head(self):
        answer = self.hub.head(self.FILE)
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["Content-Length"], str(len(WEIGHTS)))

    def test_empty_file(self):
        answer = self.hub.get("/files/empty.bin")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["Content-Length"], "0")

    def test_ranges(self):
        size = len(WEIGHTS)
        for header, first, end in (
            ("bytes=0-0", 0, 1),
            ("bytes=1000-", 1000, size),
            ("bytes=-7", size - 7, size),
            (f"bytes=10-{size + 99}", 10, size),
        ):
            answer = self.hub.get(self.FILE, Range=header)
            self.assertEqual((answer.status, answer.body), (206, WEIGHTS[first:end]), header)
            self.assertEqual(answer.headers["Content-Range"], f"bytes {first}-{end - 1}/{size}")

    def test_range_beyond_the_end(self):
        answer = self.hub.get(self.FILE, Range=f"bytes={len(WEIGHTS)}-")
        self.assertEqual(answer.status, 416)
        self.assertEqual(answer.headers["Content-Range"], f"bytes */{len(WEIGHTS)}")

    def test_if_range(self):
        etag = self.hub.head(self.FILE).headers["ETag"]
        self.assertEqual(self.hub.get(self.FILE, Range="bytes=0-9", If_Range=etag).status, 206)
        changed = self.hub.get(self.FILE, Range="bytes=0-9", If_Range='"other"')
        self.assertEqual((changed.status, changed.body), (200, WEIGHTS))

    def test_not_modified(self):
        headers = self.hub.head(self.FILE).headers
        self.assertEqual(self.hub.get(self.FILE, If_None_Match=headers["ETag"]).status, 304)
        self.assertEqual(
            self.hub.get(self.FILE, If_Modified_Since=headers["Last-Modified"]).status, 304
        )

    def test_nothing_outside_the_folders(self):
        for target in ("/files/../secret", "/files/%2e%2e/secret", "/files/dir", "/files/nope"):
            self.assertEqual(self.hub.get(target).status, 404, target)


class Counters(ModelCase):
    def test_requests_and_bytes_are_counted_by_path(self):
        self.hub.get("/api/models/org/name")
        location = self.hub.head("/org/name/resolve/main/model.safetensors").headers["Location"]
        self.hub.get(location)
        self.hub.get(location, Range="bytes=0-99")
        self.hub.get("/files/dir/weights.pth?query=1")
        stats = self.hub.stats()
        self.assertEqual(stats["requests"], 5)
        self.assertEqual(stats["api_requests"], 1)
        self.assertEqual(stats["body_bytes"], 2 * len(WEIGHTS) + 100)
        self.assertEqual(stats["cdn_authorization_seen"], 0)
        sha256 = hashlib.sha256(WEIGHTS).hexdigest()
        self.assertEqual(
            stats["by_path"][f"/lfs/models/org/name/{sha256}"],
            {"requests": 2, "gets": 2, "heads": 0, "body_bytes": len(WEIGHTS) + 100},
        )
        self.assertEqual(
            stats["by_path"]["/org/name/resolve/main/model.safetensors"],
            {"requests": 1, "gets": 0, "heads": 1, "body_bytes": 0},
        )
        self.assertEqual(stats["by_path"]["/files/dir/weights.pth"]["body_bytes"], len(WEIGHTS))

    def test_answers_about_files_are_no_body_bytes(self):
        self.hub.get("/api/models/org/name/tree/main")
        self.hub.get("/org/name/resolve/main/config.json")
        self.hub.get("/org/name/resolve/main/nope")
        self.assertEqual(self.hub.stats()["body_bytes"], 0)

    def test_reset(self):
        self.hub.get("/files/dir/weights.pth")
        self.assertEqual(self.hub.request("POST", "/_testhub/reset").status, 200)
        stats = self.hub.stats()
        self.assertEqual((stats["requests"], stats["body_bytes"], stats["by_path"]), (0, 0, {}))

    def test_sequential_requests_are_never_concurrent(self):
        for _ in range(50):
            self.hub.get("/files/dir/weights.pth")
        self.assertEqual(self.hub.stats()["max_concurrent"], 1)

    def test_concurrent_requests_are_seen(self):
        count = 100
        # All wait in the hub until the last one is there or a second has passed.
        self.hub.set_faults({"path": "/files/*", "kind": "delay", "seconds": 1})
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            answers = list(pool.map(lambda _: self.hub.get("/files/dir/weights.pth"), range(count)))
        self.assertTrue(all(a.body == WEIGHTS for a in answers))
        stats = self.hub.stats()
        self.assertEqual(stats["requests"], count)
        self.assertGreaterEqual(stats["max_concurrent"], count // 2)

    def test_a_connection_serves_many_requests(self):
        netloc = urllib.parse.urlsplit(self.hub.url).netloc
        connection = http.client.HTTPConnection(netloc, timeout=DEADLINE_S)
        self.addCleanup(connection.close)
        connection.connect()
        socket_before = connection.sock
        for _ in range(200):
            connection.request("GET", "/files/dir/weights.pth", headers={"Range": "bytes=0-9"})
            self.assertEqual(connection.getresponse().read(), WEIGHTS[:10])
        self.assertIs(connection.sock, socket_before)


class FaultRules(ModelCase):
    FILE = "/files/dir/weights.pth"

    def read_all(self, target, headers=None):
        """Status and the bytes that came before the connection closed, whatever was promised."""
        netloc = urllib.parse.urlsplit(self.hub.url)
        lines = [f"GET {target} HTTP/1.1", "Host: hub", "Connection: close"]
        lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
        with socket.create_connection((netloc.hostname, netloc.port), DEADLINE_S) as sock:
            sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            raw = b""
            while piece := sock.recv(1 << 16):
                raw += piece
        head, body = raw.split(b"\r\n\r\n", 1)
        return head.decode(), body

    def test_status_with_headers_a_number_of_times(self):
        self.hub.set_faults(
            {
                "path": "/files/*",
                "kind": "status",
                "status": 429,
                "headers": {"Retry-After": "3"},
                "body": "slow down",
                "times": 2,
            }
        )
        answers = [self.hub.get(self.FILE) for _ in range(3)]
        self.assertEqual([a.status for a in answers], [429, 429, 200])
        self.assertEqual((answers[0].headers["Retry-After"], answers[0].body), ("3", b"slow down"))

    def test_times_holds_for_requests_at_once(self):
        self.hub.set_faults({"path": "*", "kind": "status", "status": 503, "times": 3})
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: self.hub.get(self.FILE).status, range(16)))
        self.assertEqual(answers.count(503), 3)

    def test_skip_lets_the_first_pass(self):
        self.hub.set_faults({"path": "*", "kind": "status", "skip": 1, "times": 1})
        self.assertEqual([self.hub.get(self.FILE).status for _ in range(3)], [200, 500, 200])

    def test_method_and_path_select(self):
        self.hub.set_faults({"path": "/files/*.pth", "method": "HEAD", "kind": "status", "status": 404})
        self.assertEqual(self.hub.head(self.FILE).status, 404)
        self.assertEqual(self.hub.get(self.FILE).status, 200)
        self.assertEqual(self.hub.head("/api/models/org/name").status, 200)

    def test_faults_reach_the_second_host(self):
        location = self.hub.head("/org/name/resolve/main/model.safetensors").headers["Location"]
        self.hub.set_faults({"path": "/lfs/*", "kind": "status", "status": 403, "times": 1})
        self.assertEqual([self.hub.get(location).status for _ in range(2)], [403, 200])

    def test_delete_ends_them_and_a_new_list_replaces_the_old(self):
        self.hub.set_faults({"path": "*", "kind": "status"})
        self.hub.set_faults({"path": "/nowhere", "kind": "status"})
        self.assertEqual(self.hub.get(self.FILE).status, 200)
        self.hub.set_faults({"path": "*", "kind": "status"})
        self.assertEqual(self.hub.request("DELETE", "/_testhub/faults").status, 200)
        self.assertEqual(self.hub.get(self.FILE).status, 200)

    def test_hits_are_told(self):
        self.hub.set_faults({"path": "/files/*", "kind": "cut"})
        self.read_all(self.FILE)
        self.assertEqual(self.hub.get("/_testhub/faults").json()[0]["hits"], 1)

    def test_bad_rules_are_refused_and_leave_the_old_ones(self):
        self.hub.set_faults({"path": "*", "kind": "status", "status": 418})
        for bad in ("{", "{}", '[{"path": "*"}]', '[{"path": "*", "kind": "nope"}]',
                    '[{"path": "*", "kind": "cut", "tims": 1}]'):
            answer = self.hub.request("POST", "/_testhub/faults", body=bad)
            self.assertEqual(answer.status, 400, bad)
        self.assertEqual(self.hub.get(self.FILE).status, 418)

    def test_cut_closes_in_mid_body(self):
        self.hub.set_faults({"path": self.FILE, "kind": "cut", "after_bytes": 1000, "times": 1})
        head, body = self.read_all(self.FILE)
        self.assertIn(f"Content-Length: {len(WEIGHTS)}", head)
        self.assertEqual(body, WEIGHTS[:1000])
        self.assertEqual(self.hub.stats()["body_bytes"], 1000)
        self.assertEqual(self.read_all(self.FILE)[1], WEIGHTS)

    def test_cut_beyond_the_end_is_not_used_up(self):
        self.hub.set_faults({"path": self.FILE, "kind": "cut", "after_bytes": 1000, "times": 1})
        self.assertEqual(self.hub.get(self.FILE, Range="bytes=0-99").body, WEIGHTS[:100])
        self.assertEqual(len(self.read_all(self.FILE)[1]), 1000)

    def test_reset_is_no_orderly_end(self):
        self.hub.set_faults({"path": self.FILE, "kind": "reset", "after_bytes": 1000, "times": 1})
        netloc = urllib.parse.urlsplit(self.hub.url)
        with socket.create_connection((netloc.hostname, netloc.port), DEADLINE_S) as sock:
            sock.sendall(f"GET {self.FILE} HTTP/1.1\r\nHost: hub\r\n\r\n".encode())
            with self.assertRaises(ConnectionResetError):
                while sock.recv(1 << 16):
                    pass
        self.assertEqual(self.hub.get(self.FILE).body, WEIGHTS)

    def test_wrong_range_is_a_true_answer_to_another_question(self):
        self.hub.set_faults({"path": self.FILE, "kind": "wrong_range", "after_bytes": 150})
        answer = self.hub.get(self.FILE, Range="bytes=100-199")
        self.assertEqual((answer.status, answer.body), (206, WEIGHTS[150:250]))
        self.assertEqual(answer.headers["Content-Range"], f"bytes 150-249/{len(WEIGHTS)}")
        self.assertEqual(self.hub.get(self.FILE).body, WEIGHTS)
        self.assertEqual(self.hub.get("/_testhub/faults").json()[0]["hits"], 1)

    def test_wrong_range_ends_where_the_file_does(self):
        last = len(WEIGHTS) - 1
        self.hub.set_faults({"path": self.FILE, "kind": "wrong_range", "after_bytes": last})
        answer = self.hub.get(self.FILE, Range="bytes=100-199")
        self.assertEqual(answer.body, WEIGHTS[last:])
        self.assertEqual(answer.headers["Content-Range"], f"bytes {last}-{last}/{len(WEIGHTS)}")

    def test_other_etag(self):
        etag = self.hub.head(self.FILE).headers["ETag"]
        self.hub.set_faults({"path": self.FILE, "kind": "other_etag"})
        answer = self.hub.get(self.FILE, Range="bytes=0-9", If_Range=etag)
        self.assertEqual((answer.status, answer.body), (206, WEIGHTS[:10]))
        self.assertEqual(answer.headers["ETag"], '"another"')

    def test_flip_changes_one_byte_of_the_file_also_in_a_range(self):
        self.hub.set_faults({"path": self.FILE, "kind": "flip", "after_bytes": 150})
        part = self.hub.get(self.FILE, Range="bytes=100-199").body
        differing = [i for i in range(100) if part[i] != WEIGHTS[100 + i]]
        self.assertEqual(differing, [50])
        self.assertEqual(self.hub.get(self.FILE, Range="bytes=200-299").body, WEIGHTS[200:300])

    def test_stall_sends_no_more_until_the_client_leaves(self):
        self.hub.set_faults({"path": self.FILE, "kind": "stall", "after_bytes": 500, "times": 1})
        netloc = urllib.parse.urlsplit(self.hub.url)
        with socket.create_connection((netloc.hostname, netloc.port), DEADLINE_S) as sock:
            sock.sendall(f"GET {self.FILE} HTTP/1.1\r\nHost: hub\r\n\r\n".encode())
            raw = b""
            while not raw.endswith(WEIGHTS[:500]):
                raw += sock.recv(1 << 16)
            sock.settimeout(0.3)
            with self.assertRaises(TimeoutError):
                sock.recv(1)
        self.assertEqual(self.hub.get(self.FILE).body, WEIGHTS)

    def test_throttle_takes_its_time(self):
        self.hub.set_faults({"path": self.FILE, "kind": "throttle", "bytes_per_second": 600_000})
        start = time.monotonic()
        self.assertEqual(self.hub.get(self.FILE).body, WEIGHTS)
        self.assertGreater(time.monotonic() - start, 0.4)

    def test_delay_holds_back_the_answer(self):
        self.hub.set_faults({"path": self.FILE, "kind": "delay", "seconds": 0.3, "times": 1})
        start = time.monotonic()
        self.assertEqual(self.hub.head(self.FILE).status, 200)
        self.assertGreaterEqual(time.monotonic() - start, 0.3)

    def test_html_in_place_of_weights(self):
        self.hub.set_faults({"path": self.FILE, "kind": "html"})
        answer = self.hub.get(self.FILE)
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.headers["Content-Type"].startswith("text/html"))
        self.assertTrue(answer.body.startswith(b"<!DOCTYPE html>"))
        self.assertEqual(self.hub.stats()["body_bytes"], 0)

    def test_lfs_pointer_in_place_of_weights(self):
        location = self.hub.head("/org/name/resolve/main/model.safetensors").headers["Location"]
        self.hub.set_faults({"path": "*", "kind": "lfs_pointer"})
        self.assertEqual(self.hub.get(self.FILE).body, pointer_of(WEIGHTS))
        self.assertEqual(self.hub.get(location).body, pointer_of(WEIGHTS))

    def test_no_ranges(self):
        self.hub.set_faults({"path": self.FILE, "kind": "no_ranges"})
        answer = self.hub.get(self.FILE, Range="bytes=5-9")
        self.assertEqual((answer.status, answer.body), (200, WEIGHTS))
        self.assertNotEqual(self.hub.head(self.FILE).headers["Accept-Ranges"], "bytes")

    def test_no_length(self):
        self.hub.set_faults({"path": self.FILE, "kind": "no_length"})
        answer = self.hub.get(self.FILE)
        self.assertEqual(answer.body, WEIGHTS)
        self.assertIsNone(answer.headers["Content-Length"])
        self.assertIsNone(self.hub.head(self.FILE).headers["Content-Length"])

    def test_no_length_and_cut(self):
        self.hub.set_faults(
            {"path": self.FILE, "kind": "no_length"},
            {"path": self.FILE, "kind": "cut", "after_bytes": 1000},
        )
        with self.assertRaises(http.client.IncompleteRead):
            self.hub.get(self.FILE)

    def test_wrong_length_is_a_complete_answer_of_another_size(self):
        self.hub.set_faults({"path": self.FILE, "kind": "wrong_length", "after_bytes": 1000})
        self.assertEqual(self.hub.get(self.FILE).body, WEIGHTS[:1000])
        longer = len(WEIGHTS) + 10
        self.hub.set_faults({"path": self.FILE, "kind": "wrong_length", "after_bytes": longer})
        self.assertEqual(self.hub.get(self.FILE).body, WEIGHTS + bytes(10))

    def test_redirect_loop(self):
        self.hub.set_faults({"path": self.FILE, "kind": "redirect_loop"})
        answer = self.hub.get(self.FILE + "?a=1")
        self.assertEqual((answer.status, answer.headers["Location"]), (302, self.FILE + "?a=1"))

    def test_gzip(self):
        self.hub.set_faults({"path": self.FILE, "kind": "gzip"})
        answer = self.hub.get(self.FILE)
        self.assertEqual(answer.headers["Content-Encoding"], "gzip")
        self.assertEqual(gzip.decompress(answer.body), WEIGHTS)


class Serving(HubCase):
    def fill(self):
        write(self.root / "files/weights.pth", WEIGHTS)

    def test_port_file_tells_the_process(self):
        self.assertEqual(self.hub.pid, self.hub.process.pid)
        self.assertNotEqual(self.hub.url, self.hub.cdn_url)

    def test_signals_end_it_at_once_even_with_clients_waiting(self):
        for signum in (signal.SIGTERM, signal.SIGINT):
            hub = Hub(self.root)
            hub.set_faults(
                {"path": "*", "method": "GET", "kind": "stall"},
                {"path": "*", "method": "HEAD", "kind": "delay", "seconds": 3600},
            )
            netloc = urllib.parse.urlsplit(hub.url)
            sockets = []
            for line in ("GET /files/weights.pth", "HEAD /files/weights.pth", ""):
                sock = socket.create_connection((netloc.hostname, netloc.port), DEADLINE_S)
                if line:
                    sock.sendall(f"{line} HTTP/1.1\r\nHost: hub\r\n\r\n".encode())
                sockets.append(sock)
            self.assertTrue(sockets[0].recv(1))  # the stalled answer has begun
            start = time.monotonic()
            hub.stop(signum)
            self.assertLess(time.monotonic() - start, 5)
            for sock in sockets:
                sock.close()

    def test_a_missing_folder_is_an_error(self):
        result = subprocess.run(
            [TESTHUB, "serve", "--root", self.root / "nope", "--port-file", self.root / "p"],
            capture_output=True,
            text=True,
        )
        self.assertEqual(result.returncode, 1)
        self.assertIn("is not a folder", result.stderr)
        self.assertFalse((self.root / "p").exists())


class SecondAddress(HubCase):
    OPTIONS = ("--cdn-bind", "127.0.0.2", "--throttle", "600000")

    def fill(self):
        write(self.root / "models/org/name/w.bin", WEIGHTS)

    def test_lfs_files_come_from_another_address(self):
        location = self.hub.head("/org/name/resolve/main/w.bin").headers["Location"]
        self.assertTrue(location.startswith("http://127.0.0.2:"))
        start = time.monotonic()
        self.assertEqual(self.hub.get(location).body, WEIGHTS)
        self.assertGreater(time.monotonic() - start, 0.4)


class Demo(unittest.TestCase):
    MANIFEST = {
        "version": 1,
        "entries": [
            {"name": "file", "source": "org/things", "filename": "sub/things.pth", "sha256": "0" * 64},
            {"name": "snap", "source": "org/snap", "include": ["*.safetensors", "extra/*.bin"],
             "exclude": ["*.json"]},
            {"name": "pinned", "source": "org/pinned", "revision": "v1.0"},
            {"name": "bert", "source": "bert-base-uncased", "repo_type": "model"},
            {"name": "a.pth", "source": "https://user:pw@host.example/a/w%20x.pth?sig=1",
             "mirrors": ["https://mirror.example/w.pth"], "size": 5},
            {"name": "code", "source": "https://codeload.example/o/r/zip/refs/heads/main",
             "dest": "torch/hub/o_r_main", "unpack": True, "strip_components": 1},
            {"name": "mine", "source": "/shared/ckpt/mine.pth", "optional": True},
        ],
    }

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.root = self.dir / "root"
        self.root.mkdir()

    def demo(self, manifest=None, root=None, url="http://127.0.0.1:1", *options):
        source, out = self.dir / "in.json", self.dir / "out.json"
        source.write_text(json.dumps(manifest or self.MANIFEST))
        subprocess.run(
            [TESTHUB, "demo", "--manifest", source, "--root", root or self.root, "--url", url,
             "--out", out, *options],
            check=True,
        )
        return json.loads(out.read_text())

    def entries(self, **kwargs):
        return {entry["name"]: entry for entry in self.demo(**kwargs)["entries"]}

    def test_url_entries_point_at_the_hub_and_are_pinned(self):
        entry = self.entries()["a.pth"]
        self.assertEqual(
            entry["source"], "http://127.0.0.1:1/plain/host.example/a/w%20x.pth?sig=1"
        )
        self.assertEqual(entry["mirrors"], ["http://127.0.0.1:1/plain/mirror.example/w.pth"])
        data = (self.root / "plain/host.example/a/w x.pth").read_bytes()
        self.assertEqual(data, (self.root / "plain/mirror.example/w.pth").read_bytes())
        self.assertEqual(entry["sha256"], hashlib.sha256(data).hexdigest())
        self.assertEqual((entry["size"], len(data)), (65536, 65536))
        self.assertFalse(data.lstrip().lower().startswith((b"<", b"version https://git-lfs")))

    def test_single_hub_file_is_pinned_and_other_fields_stay(self):
        entry = self.entries()["file"]
        data = (self.root / "models/org/things/sub/things.pth").read_bytes()
        self.assertEqual(entry["sha256"], hashlib.sha256(data).hexdigest())
        self.assertEqual(entry["source"], "org/things")
        self.assertEqual(entry["filename"], "sub/things.pth")

    def test_snapshot_has_a_file_for_every_include_pattern(self):
        entry = self.entries()["snap"]
        self.assertEqual(entry, self.MANIFEST["entries"][1])
        repo = self.root / "models/org/snap"
        files = sorted(str(p.relative_to(repo)) for p in repo.rglob("*") if p.is_file())
        self.assertEqual(
            files,
            ["README.md", "config.json", "extra/model.bin", "model.safetensors", "tokenizer.json"],
        )
        json.loads((repo / "config.json").read_text())
        tensors = (repo / "model.safetensors").read_bytes()
        size = int.from_bytes(tensors[:8], "little")
        header = json.loads(tensors[8 : 8 + size])
        self.assertEqual(header["stand_in"]["data_offsets"][1], len(tensors) - 8 - size)

    def test_paths_stay_as_they_are(self):
        self.assertEqual(self.entries()["mine"], self.MANIFEST["entries"][-1])

    def test_archive_for_an_entry_that_is_unpacked(self):
        entry = self.entries()["code"]
        data = (self.root / "plain/codeload.example/o/r/zip/refs/heads/main").read_bytes()
        self.assertEqual(entry["sha256"], hashlib.sha256(data).hexdigest())
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            self.assertIsNone(archive.testzip())
            self.assertIn("stand-in/hubconf.py", archive.namelist())

    def test_archives_of_tar(self):
        names = ("x.tar", "x.tar.gz")
        self.demo([{"name": n, "source": f"https://host.example/{n}", "unpack": True} for n in names])
        for name in names:
            with tarfile.open(self.root / "plain/host.example" / name) as archive:
                members = archive.getmembers()
                self.assertIn("stand-in/hubconf.py", [m.name for m in members])
                self.assertEqual(len(archive.extractfile(members[-1]).read()), 65536)

    def test_same_bytes_on_every_machine(self):
        other = self.dir / "other"
        other.mkdir()
        self.assertEqual(self.entries(), self.entries(root=other))

    def test_files_of_the_right_size_stay(self):
        self.demo()
        file = self.root / "plain/host.example/a/w x.pth"
        file.write_bytes(b"r" * 65536)
        self.assertEqual(self.entries()["a.pth"]["sha256"], hashlib.sha256(b"r" * 65536).hexdigest())
        file.write_bytes(b"real!")  # the size that the manifest states
        self.assertEqual(self.entries()["a.pth"]["size"], 5)
        file.write_bytes(b"broken")
        self.assertEqual(self.entries()["a.pth"]["size"], 65536)

    def test_size_option(self):
        out = self.demo(None, None, "http://127.0.0.1:1", "--bytes", "10")
        self.assertEqual(out["entries"][0]["size"], 10)

    def test_bare_array(self):
        out = self.demo([{"name": "w.pth", "source": "https://host.example/w.pth"}])
        self.assertEqual(out[0]["source"], "http://127.0.0.1:1/plain/host.example/w.pth")

    def test_what_was_made_is_what_the_hub_serves(self):
        hub = Hub(self.root)
        self.addCleanup(hub.stop)
        entries = self.entries(url=hub.url)
        entry = entries["a.pth"]
        for address in (entry["source"], *entry["mirrors"]):
            body = hub.get(address).body
            self.assertEqual(hashlib.sha256(body).hexdigest(), entry["sha256"])
        etag = hub.head("/org/things/resolve/main/sub/things.pth").headers["X-Linked-Etag"]
        self.assertEqual(etag, f'"{entries["file"]["sha256"]}"')
        self.assertEqual(hub.get("/api/models/org/pinned/revision/v1.0").status, 200)
        self.assertEqual(hub.get("/api/models/bert-base-uncased").status, 200)

    def test_a_bad_manifest_is_named(self):
        source = self.dir / "bad.json"
        source.write_text('{"version": 1}')
        result = subprocess.run(
            [TESTHUB, "demo", "--manifest", source, "--root", self.root, "--url", "http://h:1",
             "--out", self.dir / "out.json"],
            capture_output=True,
            text=True,
        )
        self.assertEqual(result.returncode, 1)
        self.assertIn("bad.json", result.stderr)
        self.assertFalse((self.dir / "out.json").exists())


if __name__ == "__main__":
    TESTHUB = os.path.abspath(sys.argv.pop(1))
    unittest.main()
