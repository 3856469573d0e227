"""Lines of environment files as people write them, and a file that is written in place."""

from __future__ import annotations

import multiprocessing
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.understudy import envfile as e

PANDA, TITAN = "http://panda:8772", "http://titan:8772"

#: What stands in the file, the URL that a client takes from there, and the line of a switch.
CERTAIN = [
    (b"U=http://panda:8772", PANDA, b"U=http://titan:8772"),
    (b"export U=http://panda:8772", PANDA, b"export U=http://titan:8772"),
    (b"\tU='http://panda:8772'  ", PANDA, b"\tU='http://titan:8772'"),
    (b'U="http://panda:8772" # panda\'s', PANDA, b'U="http://titan:8772"'),
    (b"U=http://panda:8772 # panda; see ${WIKI} \\o/", PANDA, b"U=http://titan:8772"),
    (b"U = http://panda:8772", PANDA, b"U = http://titan:8772"),
    (b"U=HTTP://Panda:8772/", PANDA, b"U=http://titan:8772"),
    (b"U=http://panda:80/tts/", "http://panda/tts", b"U=http://titan:8772"),
    (b"U=http://op:s3cret@panda:8772", PANDA, b"U=http://titan:8772"),
    (b"U=http://panda:8772/?key=s3cret", PANDA, b"U=http://titan:8772"),
    (b"U=http://[fd00::7]:8772", "http://[fd00::7]:8772", b"U=http://titan:8772"),
    (b"U=", "", b"U=http://titan:8772"),
    (b"U=''", "", b"U='http://titan:8772'"),
]
UNCERTAIN = [
    (b"U=http://${PANDA}:8772", "to be expanded by who reads it"),
    (b"U=http://`hostname`:8772", "to be expanded by who reads it"),
    (b"U=http://$PANDA:8772", "not just a URL"),
    (b"U=http://panda:8772\\", "a backslash in its value"),
    (b"U=http://panda:8772; export U", "not just a URL"),
    (b"U=http://panda:8772?a=1&b=s3cret", "not just a URL"),
    (b"U=http://panda:8772#s3cret", "not just a URL"),
    (b"U=s3cret", "not just a URL"),
    (b"U='http://panda:8772", "not just a URL"),
    (b"U='http://panda:8772'/tts", "not just a URL"),
    (b"U=http://panda:8772\f", "a control character"),
    (b"U=http://panda:8772\rX=1", "a control character"),
    ("U=http://pförtner:8772".encode(), "not just a URL"),
    ("U=http://pförtner:8772".encode("latin-1"), "not just a URL"),
    (b"U=# panda", "not just a URL"),
]


def line(data: bytes) -> e.Assignment:
    found = e.find(data, "U")
    assert found
    return found


@pytest.mark.parametrize(("body", "url", "after"), CERTAIN)
def test_a_line_has_one_url_and_another_is_written(body: bytes, url: str, after: bytes) -> None:
    found = line(b"# U=no\n#U=no\nXU=no\n" + body + b"\nUX=no")
    assert (found.url(), found.number, found.body) == (url, 4, body)
    assert found.leading_to(TITAN) == after
    assert line(after).url() == TITAN


@pytest.mark.parametrize("body", [body for body, _, _ in CERTAIN if b" = " not in body])
def test_a_shell_takes_the_same_url_before_and_after(body: bytes, tmp_path: Path) -> None:
    for content in (body, line(body).leading_to(TITAN)):
        (tmp_path / "env").write_bytes(content + b"\n")
        printed = subprocess.check_output(["sh", "-c", f'. {tmp_path}/env; printf %s "$U"'])
        assert printed.decode() == line(content).text()


@pytest.mark.parametrize(("body", "why"), UNCERTAIN)
def test_a_line_that_readers_take_differently_is_named(body: bytes, why: str) -> None:
    with pytest.raises(e.EnvFileError, match=rf"^line 2, U=…: .*{re.escape(why)}") as raised:
        line(b"X=1\n" + body + b"\n").url()
    assert str(raised.value).endswith(
        "Next: write U=http://HOST:PORT there, and a comment into a line of its own"
    )
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("before", [b"X=1 \\\n", b"# see C:\\\r\n"])
def test_a_line_may_go_on_from_the_one_before(before: bytes) -> None:
    with pytest.raises(e.EnvFileError, match="line 2, U=…: the line before ends with a backslash"):
        line(before + b"U=http://panda:8772\n").url()


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (b"\xef\xbb\xbfU=http://panda:8772\n", 1),
        (b"X=1\r\nU=http://panda:8772\r\nY=2\r\n", 2),
        (b"A=page\x0cbreak\nB=\x85\x1c\xe9\nU=http://panda:8772\n", 3),
        (b"U=http://first\nU=http://panda:8772\n#U=http://last\n", 2),
        (b"X=1\n\xef\xbb\xbfU=http://other\nU=http://panda:8772", 3),
    ],
)
def test_files_are_bytes_and_lines_end_with_a_line_feed(data: bytes, number: int) -> None:
    found = line(data)
    assert (found.url(), found.number) == (PANDA, number)
    assert data[found.start :].startswith(found.body)


def test_a_key_that_is_not_there_is_not_invented() -> None:
    assert e.find(b"X=1\nUX=2\n", "U") is None
    assert e.find(b"AxB=1\n", "A.B") is None


def test_a_token_may_be_anything_that_is_certain() -> None:
    for body, text in ((b"U='a;b&c $d'", "a;b&c $d"), (b"U=a=b== # new", "a=b=="), (b"U=#1", "#1")):
        assert line(body).text() == text
    with pytest.raises(e.EnvFileError, match="to be expanded"):
        line(b"U=${TOKEN}").text()


# --- writing ---------------------------------------------------------------------------------

LONG, SHORT = b"U=http://panda.example.org:8772\nTOKEN=s3cret\n", b"U=http://titan\nTOKEN=s3cret\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.env"
    path.write_bytes(LONG)
    return path


@pytest.mark.parametrize("mode", [0o640, 0o400, 0o444])
def test_the_file_stays_the_same_one(file: Path, tmp_path: Path, mode: int) -> None:
    os.link(file, tmp_path / "other name")
    os.setxattr(file, "user.note", b"keep")
    file.chmod(mode)
    before = file.stat()
    e.write(str(file), LONG, SHORT, str(tmp_path / "copy"))
    assert (tmp_path / "other name").read_bytes() == SHORT
    after = file.stat()
    assert (after.st_ino, after.st_uid, stat.S_IMODE(after.st_mode)) == (
        before.st_ino,
        before.st_uid,
        mode,
    )
    assert os.getxattr(file, "user.note") == b"keep"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.env", "other name"]


STEPS = ["pwrite", "ftruncate", "fsync", "unlink"]


def _killed_before(step: str, file: Path, old: bytes, new: bytes) -> None:
    real = getattr(os, step)

    def dies(first: Any, *rest: Any) -> Any:
        if step != "fsync" or Path(f"/proc/self/fd/{first}").samefile(file):
            os._exit(9)
        return real(first, *rest)

    setattr(os, step, dies)
    e.write(str(file), old, new, str(file.with_name("copy")))
    os._exit(0)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("old", "new"), [(LONG, SHORT), (SHORT, LONG)])
def test_killed_anywhere_it_is_an_environment_file(
    file: Path, step: str, old: bytes, new: bytes
) -> None:
    file.write_bytes(old)
    arguments = (step, file, old, new)
    process = multiprocessing.get_context("fork").Process(target=_killed_before, args=arguments)
    process.start()
    process.join(20)
    assert process.exitcode == 9
    now = file.read_bytes()
    assert now.rstrip(b"\n") in (old.rstrip(b"\n"), new.rstrip(b"\n"))
    assert e.mixed(now, old, new) == (now not in (old, new))
    assert file.with_name("copy").read_bytes() == old
    assert stat.S_IMODE(file.with_name("copy").stat().st_mode) == 0o600


@pytest.mark.parametrize(("old", "new"), [(LONG, SHORT), (SHORT, LONG)])
def test_what_a_power_cut_leaves_is_told_from_a_change_by_hand(old: bytes, new: bytes) -> None:
    padded = new + b"\n" * max(0, len(old) - len(new))
    torn = [padded[:count] + old[count:] for count in range(len(padded) + 1)]
    assert all(e.mixed(now, old, new) for now in torn if now not in (old, new))
    assert e.mixed(b"", old, new)
    assert e.mixed(bytes(len(new)), old, new)
    for hand in (b"U=http://cloud\nTOKEN=s3cret\n", new + b"X=1\n", old[:5]):
        assert not e.mixed(hand, old, new)


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A disk of two pages, or a skipped test where only root may mount one."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        file, filler = disk / "agent.env", disk / "filler"
        old = b"U=http://panda\n" + b"#" * 4080
        file.write_bytes(old)
        filler.write_bytes(bytes(4096))
        with pytest.raises(OSError, match="No space left on device"):
            e.write(str(file), old, old.replace(b"panda", b"panda.example.org"), f"{tmp_path}/copy")
        assert file.read_bytes() == old
        assert not (tmp_path / "copy").exists()


def test_a_disk_that_may_not_be_written_is_seen_beforehand(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        file = disk / "agent.env"
        file.write_bytes(LONG)
        assert e.why_not_writable(str(file)) == ""
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert e.why_not_writable(str(file)) == "Read-only file system"
