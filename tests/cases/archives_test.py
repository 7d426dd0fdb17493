"""What archives have in them that no honest one has, and what becomes of an honest one on its way: flipped bits,
cuts, bytes behind its end. An archive is unpacked whole and right, or refused as a whole; which of the two never
depends on luck.
"""

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import zipfile

import cases
import harness

NOISE = random.Random(7).randbytes(40_000)
MEMBERS = {"a.bin": NOISE[:20_000], "deep/b.txt": b"right " * 2000}
OTHERS = {"c.bin": NOISE[20_000:]}


def tar_of(members=None, **info):
    """Each (name, data or TarInfo): a tar as Python writes it, with the zeros at its end."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in (MEMBERS if members is None else members).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for field, value in info.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def zip_of(members=None, compression=zipfile.ZIP_DEFLATED, mode=stat.S_IFREG | 0o644):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in (MEMBERS if members is None else members).items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return out.getvalue()


class Pipe(io.BytesIO):
    """A zip that is written to it has the sizes of each member behind its data."""

    def seekable(self):
        return False

    def tell(self):
        raise io.UnsupportedOperation


def streamed_zip():
    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return out.getvalue()


def commented(data, comment):
    return data[:-2] + struct.pack("<H", len(comment)) + comment


def flipped(data, offset, bit=0):
    changed = bytearray(data)
    changed[offset] ^= 1 << bit
    return bytes(changed)


class Archives(cases.Cases):
    def setUp(self):
        super().setUp()
        self.number = 0

    def unpack(self, data, suffix, **more):
        """(what the command ended with, the folder) of an archive that nothing pins."""
        self.number += 1
        name = f"{self.number}.{suffix}"
        self.hub.put("files/" + name, data)
        dest = f"models/{self.number}"
        entry = {"name": name, "source": self.hub.file_url(name), "dest": dest, "unpack": True, **more}
        self.done = self.fvp(self.manifest([entry]))
        return self.done, self.eval_cache / dest

    def unpacked(self, data, suffix, members=None, **more):
        """What it came to, in the words of the table."""
        done, folder = self.unpack(data, suffix, **more)
        if done.returncode != 0:
            self.assertFalse(folder.exists(), "something was published")
            self.assertIn("hint", done.stderr)
            return f"exit {done.returncode}"
        found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return "exit 0, whole" if found == (MEMBERS if members is None else members) else "exit 0, other bytes"


class Checksums(Archives):
    def test_honest_ones_are_unpacked(self):
        tar = tar_of()
        for suffix, data in {
            "tar": tar,
            "tar.gz": gzip.compress(tar),
            "tar.xz": lzma.compress(tar),
            "zip": zip_of(),
            "stored.zip": zip_of(compression=zipfile.ZIP_STORED),
        }.items():
            self.case("archive", f"honest {suffix}", "exit 0, whole", self.unpacked(data, suffix))

    def test_a_flipped_bit_is_found_wherever_it_is(self):
        tar = tar_of()
        packed = {"tar.gz": gzip.compress(tar, mtime=0), "tar.xz": lzma.compress(tar), "zip": zip_of(compression=zipfile.ZIP_STORED)}
        # Of a gzip's head (time, system, level) and a zip's (time, version) some bits mean nothing.
        places = {"tar.gz": range(10, len(packed["tar.gz"]), 997), "tar.xz": range(12, len(packed["tar.xz"]), 997), "zip": range(100, 20_000, 997)}
        for suffix, data in packed.items():
            seen = {self.unpacked(flipped(data, offset, offset % 8), suffix) for offset in places[suffix]}
            self.case("checksum", f"a flipped bit in the data of {suffix}", {"exit 8"}, seen)

    def test_a_gzip_whose_trailer_says_something_else_is_refused(self):
        whole = gzip.compress(tar_of())
        for what, offset in {"CRC-32": -8, "length": -4, "length, high byte": -1}.items():
            seen = self.unpacked(flipped(whole, len(whole) + offset), "tar.gz")
            self.case("checksum", f"the {what} of a gzip", "exit 8", seen)

    def test_stored_gzip_data_whose_bytes_were_changed_is_refused(self):
        whole = gzip.compress(tar_of(), compresslevel=0)
        at = whole.find(b"right right")
        self.case("checksum", "stored gzip, other bytes", "exit 8", self.unpacked(whole.replace(b"right right", b"rigit right", 1), "tgz"))
        self.assertGreater(at, 0)

    def test_each_member_of_a_gzip_counts(self):
        tar = tar_of()
        halves = [tar[:9_000], tar[9_000:]]
        whole = b"".join(gzip.compress(half) for half in halves)
        self.case("checksum", "gzip of two members", "exit 0, whole", self.unpacked(whole, "tar.gz"))
        first = len(gzip.compress(halves[0]))
        for what, offset in {"first": first - 8, "second": len(whole) - 8}.items():
            seen = self.unpacked(flipped(whole, offset), "tar.gz")
            self.case("checksum", f"the CRC-32 of the {what} of two members of a gzip", "exit 8", seen)
        self.case("cut", "gzip, the second member's head alone", "exit 8", self.unpacked(whole[: first + 5], "tar.gz"))

    def test_a_pin_is_no_reason_to_look_less(self):
        data = flipped(gzip.compress(tar_of()), -8)
        seen = self.unpacked(data, "tar.gz", sha256=harness.sha256(data), size=len(data))
        self.case("checksum", "gzip with a wrong CRC-32, pinned", "exit 8", seen)

    def test_the_text_of_a_link_in_a_zip_is_checked(self):
        link = stat.S_IFLNK | 0o777
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            whole = zip_of({"l": b"deep/nowhere-at-all"}, compression, link)
            done, folder = self.unpack(whole, "zip")
            self.assert_ok(done)
            self.assertTrue((folder / "l").is_symlink())
            at = 30 + 1 + 4  # in the data
            seen = self.unpacked(flipped(whole, at, 1), "zip")
            self.case("checksum", f"the text of a link, method {compression}", "exit 8", seen)

    def test_a_zip_says_most_twice_and_must_not_contradict_itself(self):
        whole = zip_of(compression=zipfile.ZIP_STORED)
        directory = whole.find(b"PK\x01\x02")
        for what, offset in {
            "name in front": 30,
            "name in the directory": directory + 46,
            "CRC-32 in front": 14,
            "CRC-32 in the directory": directory + 16,
            "size in front": 22,
            "size in the directory": directory + 24,
            "method in front": 8,
            "method in the directory": directory + 10,
            "place of a member": directory + 42,
        }.items():
            seen = self.unpacked(flipped(whole, offset, 1), "zip")
            self.case("checksum", f"zip, {what}", "exit 8", seen)


    def test_what_stands_behind_the_data_of_a_member_is_compared(self):
        whole = streamed_zip()
        self.case("checksum", "streamed zip", "exit 0, whole", self.unpacked(whole, "zip"))
        at = whole.find(b"PK\x07\x08")
        for what, offset in {"CRC-32": 4, "packed size": 8, "size": 12}.items():
            seen = self.unpacked(flipped(whole, at + offset), "zip")
            self.case("checksum", f"streamed zip, {what} behind the data", "exit 8", seen)


class Cuts(Archives):
    def test_an_archive_that_is_cut_short_is_refused_wherever_the_cut_is(self):
        tar = tar_of()
        for suffix, data in {"tar.gz": gzip.compress(tar), "tar.xz": lzma.compress(tar), "zip": zip_of(), "tar": tar}.items():
            # A tar ends with zeros up to a multiple of 10,240 bytes, of which 512 are enough.
            end = len(data.rstrip(b"\0")) if suffix == "tar" else len(data) - 1
            cuts = sorted({*range(1, end, 1999), end, *(n for n in (1024, end - 3) if n > 0)})
            seen = {self.unpacked(data[:cut], suffix) for cut in cuts}
            self.case("cut", suffix, {"exit 8"}, seen)

    def test_a_tar_that_is_cut_between_two_members(self):
        whole = tar_of()
        between = 512 + 20_480  # the first member with its padding
        self.case("cut", "tar, between two members", "exit 8", self.unpacked(whole[:between], "tar"))
        self.assertIn("sha256", self.done.stderr)
        self.case("cut", "the same in a whole gzip", "exit 8", self.unpacked(gzip.compress(whole[:between]), "tar.gz"))

    def test_a_tar_without_zeros_at_its_end_is_taken_when_it_is_pinned(self):
        whole = tar_of()
        bare = whole[: 512 + 20_480 + 512 + 12_288]
        self.case("cut", "tar without zeros at its end", "exit 8", self.unpacked(bare, "tar"))
        self.case("cut", "the same, pinned", "exit 0, whole", self.unpacked(bare, "tar", sha256=harness.sha256(bare)))


class BehindTheEnd(Archives):
    def test_tars_that_were_joined_are_unpacked_to_the_last(self):
        both = {**MEMBERS, **OTHERS}
        joined = tar_of() + tar_of(OTHERS)
        for suffix, data in {
            "tar": joined,
            "tar.gz": gzip.compress(joined),
            "two members of tar.gz": gzip.compress(tar_of()) + gzip.compress(tar_of(OTHERS)),
            "tar.xz": lzma.compress(joined),
            "two streams of tar.xz": lzma.compress(tar_of()) + lzma.compress(tar_of(OTHERS)),
        }.items():
            self.case("joined", suffix, "exit 0, whole", self.unpacked(data, suffix.split()[-1], both))

    def test_a_cut_in_the_second_of_two_joined_tars_is_found(self):
        joined = tar_of() + tar_of(OTHERS)
        self.case("joined", "the second cut short", "exit 8", self.unpacked(joined[: len(tar_of()) + 5000], "tar"))

    def test_two_zips_that_were_joined_are_refused(self):
        self.case("joined", "two zips", "exit 8", self.unpacked(zip_of() + zip_of(OTHERS), "zip"))
        same_layout = {name: data[::-1] for name, data in MEMBERS.items()}
        stored = zipfile.ZIP_STORED
        seen = self.unpacked(zip_of(compression=stored) + zip_of(same_layout, stored), "zip")
        self.case("joined", "two zips of one layout", "exit 8", seen)

    def test_a_program_in_front_of_a_zip_is_passed_over(self):
        self.case("joined", "a zip behind a program", "exit 0, whole", self.unpacked(b"#!/bin/sh\nexec unzip\n" + zip_of(), "zip"))

    def test_other_bytes_behind_the_end_are_not_passed_over(self):
        tar = tar_of()
        for what, data in {
            "tar": tar + b"garbage " * 100,
            "tar, a few": tar + b"x",
            "tar.gz": gzip.compress(tar) + b"garbage",
            "tar.gz, within the gzip": gzip.compress(tar + b"garbage " * 100),
            "tar.gz, zeros and more": gzip.compress(tar) + bytes(100) + gzip.compress(tar_of(OTHERS)),
            "tar.xz": lzma.compress(tar) + b"garbage",
        }.items():
            self.case("behind the end", what, "exit 8", self.unpacked(data, what.split(",")[0]))

    def test_bytes_behind_a_zip_are_no_comment(self):
        whole = zip_of()
        for what, data in {
            "a few": whole + b"garbage",
            "one": whole + b"x",
            "a newline": whole + b"\n",
            "20 KiB": whole + NOISE[:20_000],
            "the comment cut": commented(whole, b"hello")[:-2],
            "a byte more than the comment": commented(whole, b"hello") + b"x",
        }.items():
            self.case("behind the end", f"zip, {what}", "exit 8", self.unpacked(data, "zip"))
        for length in (1, 5_000, 20_000, 65_535):
            self.case("behind the end", f"zip, a comment of {length}", "exit 0, whole", self.unpacked(commented(whole, b"c" * length), "zip"))

    def test_zeros_behind_the_end_are_padding(self):
        tar = tar_of()
        for suffix, data in {"tar": tar + bytes(10_240), "tar.gz": gzip.compress(tar) + bytes(777)}.items():
            self.case("behind the end", f"zeros, {suffix}", "exit 0, whole", self.unpacked(data, suffix))

    def test_a_bomb_of_padding_ends(self):
        """64 KiB of archive for each 64 MiB of zeros: nothing is written, and all of it would have to be read."""
        bomb = gzip.compress(tar_of()) + gzip.compress(bytes(1 << 26)) * 40
        self.case("behind the end", "2.5 GiB of zeros", "exit 8", self.unpacked(bomb, "tar.gz"))
        self.assertIn("over the bound", self.done.stderr)


class Kinds(Archives):
    def test_what_is_no_file_is_refused_in_a_zip(self):
        kinds = {"FIFO": stat.S_IFIFO, "device": stat.S_IFCHR, "disk": stat.S_IFBLK, "socket": stat.S_IFSOCK}
        for what, kind in kinds.items():
            for data in (b"", b"text"):
                seen = self.unpacked(zip_of({"good": b"1", "x": data}, mode=kind | 0o644), "zip")
                self.case("kind of a member", f"{what} in a zip, {len(data)} bytes", "exit 8", seen)
                self.assertIn("is a device, a FIFO or a socket", self.done.stderr)

    def test_an_archive_of_folders_only_is_refused(self):
        self.case("kind of an archive", "zip of a folder", "exit 8", self.unpacked(zip_of({"d/": b""}, mode=stat.S_IFDIR | 0o755), "zip"))
        self.case("kind of an archive", "tar of a folder", "exit 8", self.unpacked(tar_of({"d": b""}, type=tarfile.DIRTYPE), "tar"))

    def test_a_link_in_a_zip_whose_text_has_a_nul_is_refused(self):
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            seen = self.unpacked(zip_of({"l": b"x\0y"}, compression, stat.S_IFLNK | 0o777), "zip")
            self.case("kind of a member", f"link with a NUL, method {compression}", "exit 8", seen)

    def test_what_is_no_file_is_refused_in_a_tar(self):
        for what, kind in {"FIFO": tarfile.FIFOTYPE, "device": tarfile.CHRTYPE, "disk": tarfile.BLKTYPE}.items():
            tar = tar_of({"x": b""}, type=kind)
            for suffix, data in {"tar": tar, "tar.gz": gzip.compress(tar)}.items():
                self.case("kind of a member", f"{what} in a {suffix}", "exit 8", self.unpacked(data, suffix))

    def test_members_of_a_zip_that_lie_over_each_other_are_refused(self):
        """The bytes of one member listed twice under two names: how small zips become large."""
        whole = zip_of({"a": b"1" * 100, "b": b"1" * 100}, zipfile.ZIP_STORED)
        directory = whole.find(b"PK\x01\x02")
        second = whole.find(b"PK\x01\x02", directory + 1)
        both = whole[: second + 42] + struct.pack("<I", 0) + whole[second + 46 :]
        self.case("kind of a member", "two of a zip in one place", "exit 8", self.unpacked(both, "zip"))

    def test_bzip2_is_told_as_what_cannot_be_unpacked(self):
        seen = self.unpacked(bz2.compress(tar_of()), "tar.bz2")
        self.case("kind of an archive", "tar.bz2", "exit 8", seen)
        self.assertIn("tar(.gz, .xz, .zst)", self.done.stderr)

    def test_what_is_compressed_twice_is_refused(self):
        for what, data in {"gzip in gzip": gzip.compress(gzip.compress(tar_of())), "xz in xz": lzma.compress(lzma.compress(tar_of()))}.items():
            self.case("kind of an archive", what, "exit 8", self.unpacked(data, "tar.gz"))


if __name__ == "__main__":
    cases.main()
