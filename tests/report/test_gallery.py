"""The sheet of views: what it shows is what the views are."""

import pytest
import torch
from matplotlib.image import imread
from PIL import Image

from infomin.common.seeds import seeded_generator
from infomin.report import gallery as module
from infomin.report.gallery import view_sheet
from infomin.report.plots import view_strip
from infomin.views import parse


@pytest.fixture
def shown(monkeypatch):
    """What the sheet was given."""
    sheets = []
    monkeypatch.setattr(
        module, "view_strip", lambda views, path, across: sheets.append(views) or path
    )
    return sheets


@pytest.fixture
def image(tmp_path):
    pixels = torch.randint(
        256, (40, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    Image.fromarray(pixels.numpy()).save(tmp_path / "image.png")
    return tmp_path / "image.png", pixels.permute(2, 0, 1)


def test_a_row_a_draw_and_one_where_nothing_is_drawn(shown, image, tmp_path):
    path, pixels = image
    view_sheet(["color:lab", "crop:0.2+jitter:1"], tmp_path / "a.png", path, draws=2)
    (sheet,) = shown
    assert list(sheet) == ["color:lab", "crop:0.2+jitter:1, draw 1", "crop:0.2+jitter:1, draw 2"]
    for row in sheet.values():
        assert torch.equal(row[0], pixels / 255)
    for draw in range(2):
        expected = parse("crop:0.2+jitter:1")(pixels[None], seeded_generator(0, "gallery", draw))
        assert all(
            map(
                torch.equal,
                sheet[f"crop:0.2+jitter:1, draw {draw + 1}"][1:],
                [v[0] for v in expected],
            )
        )


def test_a_view_that_seldom_changes_anything_has_its_rows_all_the_same(shown, image, tmp_path):
    views = {
        "grey:0.2": 3,
        "flip:0.5": 3,
        "blur:0.5": 3,
        "grey:0.2/1+color:lab": 3,
        "grey:1": 1,
        "flip:0": 1,
        "grey:1/1+color:lab": 1,
    }
    for seed in range(4):
        view_sheet(list(views), tmp_path / "a.png", image[0], draws=3, seed=seed)
        assert [sum(row.split(",")[0] == view for row in shown[-1]) for view in views] == list(
            views.values()
        )
    view_sheet(["shared:all", "frames:all"], tmp_path / "a.png", draws=3)
    assert list(shown[-1]) == ["shared:all", "frames:all"]


def test_bright_and_grey_pictures_are_shown_as_they_are(shown, tmp_path):
    """Whether there are signs is a matter of the view: a bright picture has none below 0, and a grey one's chroma is no noise."""
    grey = torch.linspace(140, 255, 256).round().to(torch.uint8).view(16, 16)
    Image.fromarray(grey.numpy()).save(tmp_path / "grey.png")
    view_sheet(
        ["color:ydbdr", "color:lab", "frequency:2"], tmp_path / "a.png", tmp_path / "grey.png"
    )
    _, luma, chroma = shown[0]["color:ydbdr"]
    torch.testing.assert_close(luma[0], grey / 255, atol=0.02, rtol=0)
    assert (chroma - 0.5).abs().max() < 1e-3 and (shown[0]["color:lab"][2] - 0.5).abs().max() < 0.1
    assert (shown[0]["frequency:2"][1][0] - grey / 255).abs().mean() < 0.05


def test_no_picture_covers_what_stands_above_it(drawn):
    wide, square = torch.rand(3, 20, 50), torch.rand(3, 32, 32)
    view_strip({"one": [wide, square], "two": [square, wide]}, "sheet.png")
    for one in drawn[-1].axes:
        assert all(
            one.title.get_window_extent().y0 >= other.get_window_extent().y1 - 1e-6
            for other in drawn[-1].axes[2:]
        )
    first, beside = drawn[-1].axes[:2]
    assert first.get_window_extent().y1 == pytest.approx(beside.get_window_extent().y1)


def test_a_view_of_many_parts_makes_no_other_row_as_wide(monkeypatch, image, tmp_path):
    asked = []
    monkeypatch.setattr(
        module, "view_strip", lambda views, path, across: asked.append(across) or path
    )
    names = [f"crop:{area}" for area in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)] + ["crop:0.2/4"]
    for views in (names, names[:-1]):
        view_sheet(views, tmp_path / "a.png", image[0], draws=1)
    assert asked == [1, 2]


def test_views_of_scenes_show_scenes(shown, tmp_path):
    view_sheet(["shared:digit"], tmp_path / "a.png", draws=3)
    rows = list(shown[0].values())
    assert len(rows) == 3 and all(len(row) == 2 for row in rows)
    assert torch.equal(rows[0][0], rows[1][0]) and not torch.equal(rows[0][1], rows[1][1])


def test_without_an_image_there_is_one_and_the_picture_is_written(tmp_path):
    found = view_sheet(["color:lab", "patch:64", "frequency:1-4"], tmp_path / "a.png", draws=1)
    assert imread(found).std() > 0.1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "it cannot be read .it is no file.; name another"),
        ("text.png", b"words", "it cannot be read .*; name another"),
    ],
)
def test_an_image_that_cannot_be_read_is_told(name, content, message, tmp_path):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, OSError), match=f"image '.*{name}': {message}"):
        view_sheet(["color:lab"], tmp_path / "a.png", tmp_path / name)


def test_a_view_that_the_image_is_too_small_for_is_told(image, tmp_path):
    with pytest.raises(ValueError, match=r"PatchPair.*128 px or more on each side, got 40x50"):
        view_sheet(["patch:64"], tmp_path / "a.png", image[0])
    for draws in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"gallery: draws: got {draws}"):
            view_sheet(["color:lab"], tmp_path / "a.png", image[0], draws=draws)
    with pytest.raises(ValueError, match="gallery: seed: got -1"):
        view_sheet(["color:lab"], tmp_path / "a.png", image[0], seed=-1)
