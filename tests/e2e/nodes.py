"""Nodes, for tests of one machine: ranks are put on them by SLURM_NODEID, and each sees its node's folder at one path,
`self.local`, by a mount namespace of its own."""

import subprocess

import harness

ON_ITS_NODE = f"""
rank={harness.RANK}
export SLURM_NODEID=$(echo $1 | cut -d, -f$((rank + 1)))
mount --bind "$2/node$SLURM_NODEID" "$2/local" || exit 99
shift 2
exec "$@"
"""


class OnNodes(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.local = self.dir / "local"
        self.local.mkdir()

    def node(self, number):
        folder = self.dir / f"node{number}"
        folder.mkdir(exist_ok=True)
        return folder

    def small_disk(self, number, size):
        folder = self.node(number)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        self.addCleanup(subprocess.run, ["umount", folder], check=True)

    def run_on(self, nodes, *args, env=None):
        """One rank for each number in `nodes`, on that node."""
        for number in nodes:
            self.node(number)
        codes, wrapper = self.recording()
        listed = ",".join(map(str, nodes))
        done = self.run_command(
            [harness.MPIEXEC, "-n", len(nodes), "unshare", "-m", "bash", "-c", ON_ITS_NODE, "bash", listed, self.dir,
             *wrapper, self.command(), *args], env)
        done.codes = self.codes_in(codes, len(nodes))
        return done

    def assert_nothing_private(self, number):
        self.assertEqual([str(p) for p in self.node(number).rglob("*.fvprefetch-part")], [])
