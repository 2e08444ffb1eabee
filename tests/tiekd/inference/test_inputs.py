"""Images, folders and videos that a person names."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tiekd.data.image_io import encode_png
from tiekd.errors import UserError
from tiekd.inference.inputs import count_inputs, find_inputs, read_inputs

OUT = Path("out")
RED, BLUE = (255, 0, 0), (0, 0, 255)


def save(path: Path, size: tuple[int, int] = (4, 6), colour: tuple = RED, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], colour).save(path, **options)
    return path


def save_video(path: Path, frames: int = 5, rotation: int = 0) -> Path:
    """Frames of 32 x 64 px: left half black, right half grey, brighter from frame to frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            picture = np.zeros((32, 64, 3), np.uint8)
            picture[:, 32:] = 60 + 30 * number
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def photos_of(*paths: Path, every: int = 1) -> dict[str, np.ndarray]:
    return {photo.name: photo.pixels for photo in read_inputs(find_inputs(paths, OUT), every, pytest.fail)}


def test_files_are_named_by_themselves_and_those_of_a_folder_by_their_paths_in_it(tmp_path):
    for name in ("in/b.jpg", "in/a.PNG", "in/sub/a.webp", "in/.hidden.png", "in/notes.txt"):
        save(tmp_path / name, format="PNG")
    assert list(photos_of(save(tmp_path / "street.tif"), tmp_path / "in")) == ["street", "a", "b", "sub/a"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    save(tmp_path / "elsewhere/b.png")
    save(tmp_path / "in/own/a.png")
    (tmp_path / "in/linked").symlink_to("../elsewhere")
    (tmp_path / "in/own/up").symlink_to("..")
    (tmp_path / "elsewhere/back").symlink_to("../in/own")
    assert list(photos_of(tmp_path / "in")) == ["linked/b", "linked/back/a", "own/a"]


def test_two_images_of_one_name_are_refused(tmp_path):
    paths = [save(tmp_path / "a" / "x.png"), save(tmp_path / "b" / "x.jpg")]
    with pytest.raises(UserError, match=r"2 images would be written as 'x': \S+a/x.png, \S+b/x.jpg; give them in separate"):
        find_inputs(paths, OUT)


@pytest.mark.parametrize("names", [("x.png", "X.png"), ("\u00e4.png", "a\u0308.png")])
def test_names_that_are_one_on_some_file_systems_are_refused(tmp_path, names):
    paths = [save(tmp_path / folder / name) for folder, name in zip("ab", names, strict=True)]
    with pytest.raises(UserError, match=r"2 images would be written as "):
        find_inputs(paths, OUT)


def test_an_output_that_would_replace_an_input_is_refused(tmp_path):
    save(tmp_path / "a.png")
    find_inputs([tmp_path], tmp_path)
    save(tmp_path / "a_depth.png")
    find_inputs([tmp_path], tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"link/a_depth\.png: is among the images, and would be replaced; choose another --out"):
        find_inputs([tmp_path], tmp_path / "link")


def test_a_name_that_leaves_no_place_for_suffixes_is_refused(tmp_path):
    name = "\u00e4" * 115  # two bytes each
    find_inputs([save(tmp_path / f"{name}.png")], OUT)
    with pytest.raises(UserError, match=r"needed a name of at most 230 bytes without suffix; rename it"):
        find_inputs([save(tmp_path / f"{name}n.png")], OUT)


def test_what_is_not_there_and_a_folder_without_images_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.png: no such file or folder"):
        find_inputs([tmp_path / "none.png"], OUT)
    with pytest.raises(UserError, match=r"no image in this folder; valid suffixes: \.bmp, "):
        find_inputs([tmp_path], OUT)


def test_what_cannot_be_read_is_told_in_a_line_and_left_out(tmp_path):
    (tmp_path / "broken.png").write_bytes(encode_png(np.zeros((50, 50, 3), np.uint8))[:60])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "film.mp4").write_text("no video")
    save(tmp_path / "good.png")
    lines: list[str] = []
    sources = find_inputs([tmp_path / name for name in ("broken.png", "text.jpg", "film.mp4", "good.png")], OUT)
    assert [photo.name for photo in read_inputs(sources, 1, lines.append)] == ["good"]
    assert len(lines) == 3
    assert "broken.png: cannot be read" in lines[0]
    assert "text.jpg: not an image file" in lines[1]
    assert "film.mp4: cannot be read" in lines[2]


def test_an_image_stands_upright_as_its_camera_noted(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held turned by 90 degrees
    assert photos_of(save(tmp_path / "phone.jpg", (40, 60), exif=turned))["phone"].shape == (60, 40, 3)


def test_a_video_gives_its_frames_in_order(tmp_path):
    photos = photos_of(save_video(tmp_path / "drive.mp4"))
    assert list(photos) == [f"drive/{number:06d}" for number in range(5)]
    for number, image in enumerate(photos.values()):
        assert image.shape == (32, 64, 3)
        assert image[:, :24].mean() == pytest.approx(0, abs=4)
        assert image[:, 40:].mean() == pytest.approx(60 + 30 * number, abs=4)


def test_every_so_manieth_frame_is_taken_and_counted(tmp_path):
    video = save_video(tmp_path / "drive.mp4")
    assert list(photos_of(video, every=2)) == ["drive/000000", "drive/000002", "drive/000004"]
    sources = find_inputs([video, save(tmp_path / "a.png")], OUT)
    assert (count_inputs(sources, 1), count_inputs(sources, 2)) == (6, 4)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_video_stands_upright(tmp_path, rotation):
    """Its right half goes up when it is turned by 90 degrees against the clock."""
    image = photos_of(save_video(tmp_path / "phone.mp4", rotation=rotation))["phone/000000"]
    flat = np.rot90(image, -rotation // 90)
    assert flat.shape == (32, 64, 3)
    assert flat[:, :24].mean() == pytest.approx(0, abs=4)
    assert flat[:, 40:].mean() == pytest.approx(60, abs=4)
