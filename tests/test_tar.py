"""utils/web: archives as Python's tarfile writes them, read in pieces of any size."""

from __future__ import annotations

import gzip
import io
import random
import tarfile

import pytest
import requests

from utils.web import BadTar, TarStream, Web, WebError

LONG = "x" * 120 + "/" + "é" * 150 + ".mp4"
FILES = {"a.mp4": b"a" * 1000, "./label (b)/b.mp4": b"", LONG: b"c" * 512, "d": b"d" * 70_000}


def archive(form: int) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as tar:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            link = tarfile.TarInfo("link")
            link.type, link.linkname, link.size = tarfile.SYMTYPE, "a" * 200, 4096
            link.size = 0
            tar.addfile(link)
    return data.getvalue()


def members_gzip(data: bytes) -> bytes:
    """One file of many gzip members, which pigz and others write."""
    return b"".join(gzip.compress(data[at : at + 3000]) for at in range(0, len(data), 3000))


def reader(data: bytes, most: int) -> TarStream:
    stream, chance = io.BytesIO(data), random.Random(most)
    return TarStream(lambda size: stream.read(min(size, chance.randint(1, most))))


def read_all(tar: TarStream, skip: str = "") -> dict[str, bytes]:
    found = {}
    for member in tar.members():
        if member.isreg() and member.name != skip:
            file = io.BytesIO()
            tar.copy(file)
            assert len(file.getvalue()) == member.size
            found[member.name] = file.getvalue()
    return found


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, members_gzip])
@pytest.mark.parametrize("most", [3, 5000, 10**7])
def test_every_member_comes_whole(form: int, pack: type[bytes], most: int) -> None:
    tar = reader(pack(archive(form)), most)
    assert read_all(tar) == FILES
    assert tar.is_gzip == (pack is not bytes)
    left = {name: content for name, content in FILES.items() if name != "a.mp4"}
    assert read_all(reader(pack(archive(form)), most), skip="a.mp4") == left


def test_it_goes_on_from_the_last_whole_member() -> None:
    data = archive(tarfile.PAX_FORMAT)
    for end in range(0, 80_000, 700):
        first = TarStream(io.BytesIO(data[:end]).read)
        found = {}
        try:
            for member in first.members():
                file = io.BytesIO()
                first.copy(file)
                if member.isreg():
                    found[member.name] = file.getvalue()
        except BadTar as error:
            assert not error.for_good
        assert first.whole <= end
        rest = TarStream(io.BytesIO(data[first.whole :]).read, first.whole)
        assert found | read_all(rest) == FILES


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_damage_is_told_from_an_early_end(pack: type[bytes]) -> None:
    data = pack(archive(tarfile.GNU_FORMAT))
    for end in (0, 1, len(data) // 2):
        with pytest.raises(BadTar) as caught:
            read_all(reader(data[:end], 999))
        assert not caught.value.for_good
    for junk in (b"<html>" * 200, b"\x1f\x8b" + b"\xff" * 1000, random.Random(1).randbytes(4096)):
        with pytest.raises(BadTar) as caught:
            read_all(reader(junk, 999))
        assert caught.value.for_good


def test_a_damaged_header_in_the_middle_is_not_the_end() -> None:
    """Which tarfile takes it for: the rest of the archive would be lost in silence."""
    data = bytearray(archive(tarfile.GNU_FORMAT))
    data[1536 + 150] ^= 1  # in the checksum of the second member's header
    found = []
    with pytest.raises(BadTar) as caught:
        for member in reader(bytes(data), 999).members():
            found.append(member.name)
    assert found == ["a.mp4"]
    assert caught.value.for_good


def test_a_huge_extended_header_is_not_read() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**33
    asked: list[int] = []

    def read(size: int) -> bytes:
        asked.append(size)
        return info.tobuf() if len(asked) == 1 else bytes(size)

    with pytest.raises(BadTar):
        next(TarStream(read).members())
    assert sum(asked) < 2**20


def test_headers_that_extend_each_other_for_ever_are_damage() -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2
    one = header.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")
    with pytest.raises(BadTar):
        read_all(reader(one * 1500, 10**7))


def test_a_cut_within_a_sparse_header_is_an_early_end() -> None:
    header = bytearray(tarfile.TarInfo("a.mp4").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[482] = 1  # its table goes on in the next block, which does not come
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 256)
    with pytest.raises(BadTar):
        read_all(reader(bytes(header), 10**7))


def test_random_damage_raises_nothing_else() -> None:
    chance = random.Random(2)
    for pack in (bytes, gzip.compress, members_gzip):
        for _ in range(150):
            data = bytearray(pack(archive(chance.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))))
            for _ in range(chance.randint(1, 30)):
                data[chance.randrange(min(len(data), 3000))] = chance.randrange(256)
            tar = reader(bytes(data), 4096)
            try:
                for _ in tar.members():
                    tar.copy(io.BytesIO())
            except BadTar:
                pass


def test_links_and_unknown_members_may_claim_any_size() -> None:
    data = io.BytesIO()
    for name, type_, size in (("a", b"0", 5), ("b", tarfile.LNKTYPE, 10**6), ("c", b"D", 70_000)):
        info = tarfile.TarInfo(name)
        info.type, info.size = type_, size
        content = b"" if type_ == tarfile.LNKTYPE else bytes(size)
        data.write(info.tobuf() + content + bytes(-len(content) % 512))
    data.write(bytes(1024))
    assert [member.name for member in reader(data.getvalue(), 999).members()] == ["a", "b", "c"]


def test_an_answer_that_begins_elsewhere_is_asked_for_again() -> None:
    class Session:
        def request(self, *_: object, **__: object) -> requests.Response:
            answer = requests.Response()
            answer.status_code, answer.raw = 206, io.BytesIO()
            answer.headers["Content-Range"] = "bytes 0-9/10"
            return answer

    asked = Web(session=Session()).open("http://localhost/a.tar", 5)
    with pytest.raises(WebError, match="requested byte 5") as caught, asked:
        pass
    assert not caught.value.for_good
