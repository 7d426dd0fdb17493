"""Several users of one cache, for tests that root runs: two members of the cache's group, and a third who shares only
their primary group with them.
"""

import os
import stat

import cases
from cases import harness

GROUP = 43000  # the cache's
PRIMARY = 43001  # of all three
A, B, OUTSIDER = 43011, 43012, 43013


class Users(cases.Cases):
    def setUp(self):
        if os.geteuid() != 0:
            raise AssertionError("needs root, to be several users")
        super().setUp()
        self.dir.chmod(0o755)
        (self.dir / "home").chmod(0o777)
        (self.dir / "tmp").chmod(0o1777)

    def share(self, *caches, setgid=True):
        """Folders of the group, as an administrator makes them."""
        for cache in caches:
            cache.mkdir(parents=True, exist_ok=True)
            os.chown(cache, 0, GROUP)
            cache.chmod(0o2775 if setgid else 0o775)

    def words(self, user, umask):
        """What to put before a command that `user` is to run."""
        groups = "--clear-groups" if user == OUTSIDER else f"--groups={GROUP}"
        return ["setpriv", f"--reuid={user}", f"--regid={PRIMARY}", groups,
                "bash", "-c", f'umask {umask:03o}; exec "$@"', "bash"]  # fmt: skip

    def fvp_as(self, user, *args, umask=0o022, env=None):
        return self.run_command([*self.words(user, umask), self.command(), *args], env)

    def start_as(self, user, *args, umask=0o022):
        """As start(), by `user`."""
        return self.start_command([*self.words(user, umask), self.command(), *args])

    def writable_for(self, user, *folders):
        """What of them `user` may write to, but for lock files, which all may lock."""
        argv = [*self.words(user, 0o022), "find", *folders, "!", "-type", "l", "-writable"]
        return [path for path in self.run_command(argv).stdout.splitlines() if not path.endswith(".lock")]

    def wrong_rights(self, umask, setgid, *caches):
        """What in them is not the group's to use, or is more than the group's: lines, empty when all is well."""
        wrong = []
        for cache in caches:
            for path in sorted(cache.rglob("*")):
                status = path.lstat()
                if stat.S_ISLNK(status.st_mode):
                    continue
                folder = stat.S_ISDIR(status.st_mode)
                name = f"{path.relative_to(self.dir)} {stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
                need = 0o070 if folder else 0o060
                if status.st_gid != GROUP:
                    wrong.append(f"another group: {name}")
                elif status.st_mode & need != need:
                    wrong.append(f"closed to the group: {name}")
                elif folder and setgid and not status.st_mode & stat.S_ISGID:
                    wrong.append(f"hands the group on no more: {name}")
                lock = path.name.endswith(".lock")
                if not lock and status.st_mode & 0o007 & umask:
                    wrong.append(f"open to everybody: {name}")
        return wrong


def owned(path, user, mode):
    os.chown(path, user, PRIMARY, follow_symlinks=False)
    path.chmod(mode)


main = harness.main
