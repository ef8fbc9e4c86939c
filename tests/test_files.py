"""A file is whole or not there: errors, kills and full disks leave what stood before; locks go with their process."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.errors import ConfigError
from src.files import (
    AppendedFile,
    append_under_header,
    locked,
    replacing,
    sha256,
    sweep_temporaries,
    write_json,
    write_text,
)
from tests.oracles import PROJECT

TARGET = Path("runs/ckpt_0/net.ckpt")


def names(folder: Path = TARGET.parent) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(program: str) -> subprocess.Popen:
    """A child that runs a program of ours and says when it is where it should be."""
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n" + program
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def test_a_new_file_appears_with_its_folders():
    with replacing(TARGET) as temporary:
        assert temporary.parent == TARGET.parent
        assert temporary.suffix == TARGET.suffix
        temporary.write_bytes(b"new")
        assert not TARGET.exists()
    assert TARGET.read_bytes() == b"new"
    assert names() == ["net.ckpt"]


def test_an_error_leaves_the_old_file_and_nothing_else():
    write_text(TARGET, "old")

    def write_half() -> None:
        with replacing(TARGET) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert TARGET.read_text() == "old"
    assert names() == ["net.ckpt"]


def test_a_block_that_writes_nothing_is_an_error():
    write_text(TARGET, "old")
    with pytest.raises(FileNotFoundError), replacing(TARGET):
        pass
    assert TARGET.read_text() == "old"


def test_files_that_mindspore_made_read_only_are_readable_and_replaced():
    for text in ("first", "second"):
        with replacing(TARGET) as temporary:
            temporary.write_text(text)
            temporary.chmod(0o400)
        assert TARGET.stat().st_mode & 0o777 == 0o644
    assert TARGET.read_text() == "second"


def test_a_full_disk_leaves_the_old_file():
    write_text(TARGET, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_text(TARGET, "new" * 4096)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert TARGET.read_text() == "old"
    assert names() == ["net.ckpt"]


def test_contents_reach_the_disk_before_the_name(monkeypatch):
    events = []
    real_replace, real_fsync = os.replace, os.fsync

    def fsync(descriptor: int) -> None:
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        events.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_text(TARGET, "new")
    assert events == ["file", "rename", "folder"]


def test_kill_while_writing_leaves_the_old_file_and_a_temporary_to_sweep():
    write_text(TARGET, "old")
    child = start(
        f"""
import time
from pathlib import Path
from src.files import replacing
with replacing(Path({str(TARGET)!r})) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""
    )
    child.kill()
    child.wait()
    assert TARGET.read_text() == "old"
    assert len(names()) == 2
    sweep_temporaries(TARGET.parent)
    assert names() == ["net.ckpt"]


def test_json_is_readable():
    write_json(TARGET, {"klasse": "Käfer", "epoch": 1})
    assert TARGET.read_text(encoding="utf-8") == '{\n "klasse": "Käfer",\n "epoch": 1\n}\n'


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, (1 << 20) + 1, 3 << 20])
def test_sha256_of_files_of_any_size(size):
    content = bytes(range(256)) * (size // 256 + 1)
    Path("file").write_bytes(content[:size])
    assert sha256(Path("file")) == hashlib.sha256(content[:size]).hexdigest()


def test_a_folder_has_one_owner_at_a_time():
    message = r"^runs/ckpt_0: another run is using this folder, choose another --output_dir"
    # The same process opens the lock anew, as another one would.
    with locked(TARGET.parent), pytest.raises(ConfigError, match=message), locked(TARGET.parent):
        pass
    with locked(TARGET.parent):
        pass


def test_a_lock_goes_with_its_process_however_it_ends():
    program = f"""
import time
from pathlib import Path
from src.files import locked
with locked(Path({str(TARGET.parent)!r})):
    print("ready", flush=True)
    time.sleep(60)
"""
    child = start(program)
    with pytest.raises(ConfigError), locked(TARGET.parent):
        pass
    child.kill()
    child.wait()
    with locked(TARGET.parent):
        pass


# ---------------------------------------------------------------------------------------------------------------------
# Files that grow


def test_pieces_are_there_as_soon_as_they_are_appended():
    file = AppendedFile(Path("runs/log"))
    file.append(b"one ")
    assert file.path.read_bytes() == b"one "
    file.append(b"two")
    file.sync()
    file.close()
    other = AppendedFile(file.path)
    other.append(b" three")
    assert file.path.read_bytes() == b"one two three"


def test_a_piece_that_does_not_fit_is_taken_back():
    child = start(
        """
import resource, signal
from pathlib import Path
from src.files import AppendedFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = AppendedFile(Path("runs/log"))
file.append(b"first")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
print("ready", flush=True)
try:
    file.append(b"x" * 1000)
except OSError as error:
    print(error.filename, flush=True)
"""
    )
    with child:
        assert child.stdout.read() == "runs/log\n"
    assert Path("runs/log").read_bytes() == b"first"


# ---------------------------------------------------------------------------------------------------------------------
# Lines under a header


def test_a_header_comes_once():
    target = Path("new folder/results.csv")
    for number in (1, 2):
        append_under_header(target, "a,b\n", f"{number},é\n")
    assert target.read_text(encoding="utf-8") == "a,b\n1,é\n2,é\n"


def test_lines_of_another_header_are_not_mixed():
    target = Path("results.csv")
    target.write_text("a,b,c\n1,2,3\n")
    with pytest.raises(ConfigError, match=r"results.csv: has other columns than this version writes"):
        append_under_header(target, "a,b\n", "1,2\n")
    assert target.read_text() == "a,b,c\n1,2,3\n"


def test_a_part_of_a_line_stays_on_its_own():
    target = Path("results.csv")
    target.write_text("a,b\n1,2\n3")
    append_under_header(target, "a,b\n", "5,6\n")
    assert target.read_text() == "a,b\n1,2\n3\n5,6\n"


def test_processes_that_add_lines_at_once_lose_none():
    program = """
from pathlib import Path
from src.files import append_under_header
print("ready", flush=True)
for number in range(50):
    append_under_header(Path("results.csv"), "who,number\\n", f"{sys.argv[1:]},{number}\\n")
"""
    children = [start(program) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    header, *lines = Path("results.csv").read_text().splitlines()
    assert header == "who,number"
    assert sorted(lines) == sorted(f"[],{number}" for number in range(50) for _ in children)
