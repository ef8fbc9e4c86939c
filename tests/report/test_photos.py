"""Which image files names, folders and patterns stand for."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.report.photos import find_photos, names_below

FILES = ("a.png", "b.JPG", "notes.txt", "sub/c.webp", "sub/deep er/d.png", ".hidden/e.png", "sub/.f.png")


@pytest.fixture(autouse=True)
def files():
    for name in FILES:
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(*words: str) -> list[str]:
    photos = find_photos(words)
    assert photos.faults == {}
    return photos.paths


def test_a_folder_is_searched_through():
    expected = ["photos/a.png", "photos/b.JPG", "photos/sub/c.webp", "photos/sub/deep er/d.png"]
    assert found("photos") == found("photos/") == found("./photos") == expected


def test_a_named_file_counts_whatever_its_suffix():
    assert found("photos/notes.txt", "photos/.hidden/e.png") == ["photos/notes.txt", "photos/.hidden/e.png"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*", ["photos/a.png", "photos/b.JPG", "photos/sub/c.webp", "photos/sub/deep er/d.png"]),
        ("photos/*.png", ["photos/a.png"]),
        ("photos/**/*.png", ["photos/a.png", "photos/sub/deep er/d.png"]),
        ("photos/[ab].*", ["photos/a.png", "photos/b.JPG"]),
    ],
)
def test_patterns(pattern, expected):
    assert found(pattern) == expected


def test_a_file_that_looks_like_a_pattern_is_itself():
    Path("photos/[ab].png").write_bytes(b"x")
    assert found("photos/[ab].png") == ["photos/[ab].png"]


def test_every_image_once_in_the_order_of_the_names():
    assert found("photos/sub", "photos/a.png", "./photos//a.png", "photos")[:4] == [
        "photos/sub/c.webp",
        "photos/sub/deep er/d.png",
        "photos/a.png",
        "photos/b.JPG",
    ]


def test_names_that_lead_to_nothing():
    Path("empty").mkdir()
    photos = find_photos(["empty", "absent.png", "*.gif", "", "photos/a.png"])
    assert photos.paths == ["photos/a.png"]
    nothing = "no such image, folder or pattern"
    assert photos.faults == {"empty": "holds no images", "absent.png": nothing, "*.gif": nothing, "": nothing}


def test_links_into_a_circle_and_to_nothing():
    os.symlink("..", "photos/sub/up")
    os.symlink("absent.png", "photos/broken.png")
    assert found("photos") == [
        "photos/a.png",
        "photos/b.JPG",
        "photos/broken.png",
        "photos/sub/c.webp",
        "photos/sub/deep er/d.png",
    ]


def test_names_start_at_the_folder_they_have_in_common():
    assert names_below(["photos/a.png", "photos/sub/c.webp"]) == ["a.png", "sub/c.webp"]
    assert names_below(["photos/a.png"]) == ["a.png"]
    assert names_below(["/x/a/1.png", "/x/b/1.png"]) == ["a/1.png", "b/1.png"]
    assert names_below(["../one/1.png", "1.png"]) == ["one/1.png", f"{Path.cwd().name}/1.png"]


PARTS = st.sampled_from(["a", "b", "..", ".", "c d", "\n"])


@given(st.sets(st.lists(PARTS, min_size=1, max_size=4).map("/".join), min_size=1))
def test_no_name_leads_out_and_no_two_are_equal(folders):
    # As `find_photos` gives them: no path twice.
    paths = sorted({str(Path(folder, "1.png")) for folder in folders})
    files = {os.path.abspath(path) for path in paths}
    names = names_below(paths)
    assert len(set(names)) == len(files)
    assert not any(os.path.isabs(name) or ".." in name.split("/") for name in names)
