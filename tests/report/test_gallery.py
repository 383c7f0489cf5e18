"""The sheet of views shows what the views are."""

import pytest
import torch
from matplotlib.image import imread
from PIL import Image

from infomin.common.seeds import seeded_generator
from infomin.report import gallery
from infomin.report.gallery import view_sheet
from infomin.views import parse


@pytest.fixture
def sheets(monkeypatch):
    """The sheets that would be drawn: row name -> pictures."""
    given = []
    monkeypatch.setattr(
        gallery, "view_strip", lambda views, path, across: given.append(views) or path
    )
    return given


@pytest.fixture
def image(tmp_path):
    """An image file and its pixels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (40, 50, 3), dtype=torch.uint8, generator=generator)
    Image.fromarray(pixels.numpy()).save(tmp_path / "image.png")
    return tmp_path / "image.png", pixels.permute(2, 0, 1)


def test_a_random_view_has_a_row_per_draw_and_another_view_has_one(sheets, image, tmp_path):
    path, pixels = image
    view_sheet(["color:lab", "crop:0.2+jitter:1"], tmp_path / "a.png", path, draws=2)
    (sheet,) = sheets
    assert list(sheet) == ["color:lab", "crop:0.2+jitter:1, draw 1", "crop:0.2+jitter:1, draw 2"]
    for row in sheet.values():
        assert torch.equal(row[0], pixels / 255)
    for draw in range(2):
        batches = parse("crop:0.2+jitter:1")(pixels[None], seeded_generator(0, "gallery", draw))
        expected = [batch[0] for batch in batches]
        assert all(map(torch.equal, sheet[f"crop:0.2+jitter:1, draw {draw + 1}"][1:], expected))


def test_a_view_that_seldom_changes_anything_still_has_a_row_per_draw(sheets, image, tmp_path):
    rows_per_view = {
        "grey:0.2": 3,
        "flip:0.5": 3,
        "blur:0.5": 3,
        "grey:0.2/1+color:lab": 3,
        "grey:1": 1,
        "flip:0": 1,
        "grey:1/1+color:lab": 1,
    }
    for seed in range(4):
        view_sheet(list(rows_per_view), tmp_path / "a.png", image[0], draws=3, seed=seed)
        views = [row.split(",")[0] for row in sheets[-1]]
        assert {view: views.count(view) for view in views} == rows_per_view
    view_sheet(["shared:all", "frames:all"], tmp_path / "a.png", draws=3)
    assert list(sheets[-1]) == ["shared:all", "frames:all"]


def test_bright_and_grey_pictures_are_shown_as_they_are(sheets, tmp_path):
    """Signs belong to the view, not to the picture, and the chroma of grey is not noise."""
    grey = torch.linspace(140, 255, 256).round().to(torch.uint8).view(16, 16)
    Image.fromarray(grey.numpy()).save(tmp_path / "grey.png")
    views = ["color:ydbdr", "color:lab", "frequency:2"]
    view_sheet(views, tmp_path / "a.png", tmp_path / "grey.png")
    _, luma, chroma = sheets[0]["color:ydbdr"]
    torch.testing.assert_close(luma[0], grey / 255, atol=0.02, rtol=0)
    assert (chroma - 0.5).abs().max() < 1e-3
    assert (sheets[0]["color:lab"][2] - 0.5).abs().max() < 0.1
    assert (sheets[0]["frequency:2"][1][0] - grey / 255).abs().mean() < 0.05


def test_a_view_of_many_parts_does_not_widen_the_other_rows(monkeypatch, image, tmp_path):
    across_given = []
    monkeypatch.setattr(
        gallery, "view_strip", lambda views, path, across: across_given.append(across) or path
    )
    pairs = [f"crop:{area}" for area in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]
    for views in ([*pairs, "crop:0.2/4"], pairs):
        view_sheet(views, tmp_path / "a.png", image[0], draws=1)
    assert across_given == [1, 2]


def test_views_of_scenes_show_scenes(sheets, tmp_path):
    view_sheet(["shared:digit"], tmp_path / "a.png", draws=3)
    rows = list(sheets[0].values())
    assert len(rows) == 3 and all(len(row) == 2 for row in rows)
    assert torch.equal(rows[0][0], rows[1][0]) and not torch.equal(rows[0][1], rows[1][1])


def test_without_an_image_a_photograph_is_shown(tmp_path):
    path = view_sheet(["color:lab", "patch:64", "frequency:1-4"], tmp_path / "a.png", draws=1)
    assert imread(path).std() > 0.1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "cannot be read .*file.*; name another"),
        ("text.png", b"words", "cannot be read .*; name another"),
    ],
)
def test_an_unreadable_image_is_an_error(name, content, message, tmp_path):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"image '.*{name}': {message}"):
        view_sheet(["color:lab"], tmp_path / "a.png", tmp_path / name)


def test_an_image_that_is_too_small_for_a_view_is_an_error(image, tmp_path):
    with pytest.raises(ValueError, match=r"PatchPair.*128 px or more on each side, got .*40.*50"):
        view_sheet(["patch:64"], tmp_path / "a.png", image[0])


def test_draws_and_seed_are_checked(image, tmp_path):
    for draws in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"gallery: draws: got {draws}"):
            view_sheet(["color:lab"], tmp_path / "a.png", image[0], draws=draws)
    with pytest.raises(ValueError, match="gallery: seed: got -1"):
        view_sheet(["color:lab"], tmp_path / "a.png", image[0], seed=-1)
