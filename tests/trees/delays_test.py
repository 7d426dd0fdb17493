"""A rank that works is not dead, however long one call of it takes: with --rank-timeout 2s and delays beyond that, every
rank ends with 0."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import harness  # noqa: E402
from signals_test import tar_of  # noqa: E402

RANKS = 3
TIMEOUT = ("--rank-timeout", "2s")


class Delays(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.env.update(OMPI_MCA_btl_vader_single_copy_mechanism="none", OMPI_MCA_btl_base_warn_component_unused="0")

    def slow(self, calls, **more):
        self.mark = self.dir / "mark"
        self.mark.unlink(missing_ok=True)
        return {"LD_PRELOAD": str(harness.BUILD / "tests/shims/libslow_calls.so"), "FVP_SLOW": calls,
                "FVP_SLOW_MARK": str(self.mark), **more}

    def check(self, entries, calls, *args, **more):
        done = self.mpirun(RANKS, self.manifest(entries), *TIMEOUT, *args, env=self.slow(calls, **more))
        self.assertTrue(self.mark.exists(), "nothing was delayed")
        self.assertEqual(done.codes, [0] * RANKS, done.stderr)
        return done

    def test_fsync_of_6_seconds(self):
        self.hub.put("files/a.pth", os.urandom(100_000))
        self.check([{"name": "a.pth", "source": self.hub.file_url("a.pth")}], "fsync=6", FVP_SLOW_PATH="a.pth")

    def test_1000_warm_hits_on_a_metadata_server_that_takes_5_ms(self):
        data = self.hub.put("files/a.pth", b"\x05a" * 500)
        entries = [{"name": f"hit{number}", "source": self.hub.file_url("a.pth")} for number in range(1000)]
        models = self.eval_cache / "models"
        models.mkdir(parents=True)
        for entry in entries:
            (models / entry["name"]).write_bytes(data)
        self.check(entries, "stat=0.005", FVP_SLOW_PATH="hit")
        self.assertEqual(self.hub.stats()["requests"], 0)

    def test_unpacking_for_longer(self):
        self.hub.put("files/many.tar", tar_of(300))
        self.check([{"name": "many", "source": self.hub.file_url("many.tar"), "dest": "torch/hub/many", "unpack": True}], "open=0.02",
                   FVP_SLOW_PATH="member")
        self.assertEqual(len(list((self.eval_cache / "torch/hub/many").glob("member*"))), 300)

    def test_staging_for_longer(self):
        self.hub.put("files/large.bin", os.urandom(5_000_000))
        self.check([{"name": "large", "source": self.hub.file_url("large.bin")}], "write=4", "--stage",
                   str(self.dir / "own-disk"), FVP_SLOW_PATH="own-disk")

    def test_a_hit_that_takes_long_to_hash(self):
        # Without a receipt, and pinned: it is read.
        data = os.urandom(100_000)
        file = self.eval_cache / "models/pinned"
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
        self.hub.put("files/a.pth", data)
        entry = {"name": "pinned", "source": self.hub.file_url("a.pth"), "sha256": harness.sha256(data)}
        self.check([entry], "read=3", FVP_SLOW_PATH="models/pinned")
        self.assertEqual(self.hub.stats()["body_bytes"], 0)


if __name__ == "__main__":
    harness.main()
