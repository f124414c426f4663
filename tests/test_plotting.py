"""Figures: alt text is required, bytes repeat, the drawings show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from irlbook import plotting
from irlbook.errors import FigureError


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_show_displays_png_with_alt_and_closes(monkeypatch):
    shown = []
    figure, _ = plt.subplots()
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    plotting.show(figure, alt="two\n  lines that cross")
    ((data,), options), *rest = shown
    assert not rest
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == "Figure: two lines that cross"
    assert options == {
        "raw": True,
        "metadata": {"image/png": {"alt": "two lines that cross"}},
    }
    assert not plt.fignum_exists(figure.number)


def test_show_outside_a_notebook_only_closes(capsys):
    figure, _ = plt.subplots()
    plotting.show(figure, alt="nothing")
    assert not plt.fignum_exists(figure.number)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("alt", ["", "  \n", None])
def test_show_refuses_a_figure_without_alt(alt):
    figure, _ = plt.subplots()
    with pytest.raises(FigureError, match="no alt text"):
        plotting.show(figure, alt=alt)
    plt.close(figure)


def test_png_has_the_same_bytes_again_and_80_dpi():
    def draw() -> bytes:
        figure, axes = plt.subplots(figsize=(5, 3))
        plotting.heatmap(axes, np.arange(6.0).reshape(2, 3), walls=np.eye(2, 3) > 0)
        png = plotting.to_png(figure)
        plt.close(figure)
        return png

    first = draw()
    assert first == draw()
    assert b"Software" not in first and b"Date" not in first
    width, height = np.frombuffer(first[16:24], dtype=">u4")
    assert (width, height) == (400, 240)


def test_colors_differ_in_lightness_or_hue_for_everyone():
    assert list(plotting.COLORS.values())[:2] == ["#0072B2", "#E69F00"]
    rgb = np.array([to_rgb(color) for color in plotting.COLORS.values()])
    # deuteranopia: red and green collapse, roughly to their mean; the colours must stay apart
    seen = np.column_stack([rgb[:, :2].mean(axis=1), rgb[:, 2], rgb @ [0.299, 0.587, 0.114]])
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert distance[np.triu_indices(len(seen), 1)].min() > 0.1


def test_use_style_takes_the_palette():
    with plt.rc_context():
        plotting.use_style()
        colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        assert colors == list(plotting.COLORS.values())
        assert plt.rcParams["savefig.dpi"] == plotting.DPI


def test_heatmap_hides_walls_and_writes_values(ax):
    values = np.array([0.0, -1.0, np.nan, 2.0, 3.0, 4.0])
    image = plotting.heatmap(
        ax, values, shape=(2, 3), walls=[0, 0, 0, 1, 0, 0], annotate=True, title="V", colorbar=True
    )
    mask = image.get_array().mask
    assert mask.tolist() == [[False, False, True], [True, False, False]]
    assert [text.get_text() for text in ax.texts] == ["0.00", "-1.00", "3.00", "4.00"]
    assert len(ax.patches) == 2 and all(patch.get_hatch() for patch in ax.patches)
    assert image.get_clim() == (-1.0, 4.0)
    # dark squares carry white text
    assert ax.texts[1].get_color() == "white" and ax.texts[3].get_color() == "black"


@pytest.mark.parametrize(
    ("values", "shape", "match"),
    [(np.zeros(5), (2, 3), "do not fill a grid of 2 x 3"), (np.zeros(6), None, "a grid of values")],
)
def test_heatmap_names_a_wrong_shape(ax, values, shape, match):
    with pytest.raises(FigureError, match=match):
        plotting.heatmap(ax, values, shape=shape)


def test_policy_arrows_point_where_the_action_leads(ax, monkeypatch):
    drawn = []
    monkeypatch.setattr(ax, "arrow", lambda x, y, dx, dy, **k: drawn.append((x, y, dx, dy)))
    policy = np.zeros((6, 4))
    policy[0, 1] = 1.0  # right, in the top left square
    policy[4] = [0.5, 0.0, 0.5, 0.0]  # up or down, in the middle of the second row
    policy[5] = np.nan
    policy[2, 3] = 1.0  # skipped
    plotting.draw_policy(ax, policy, shape=(2, 3), skip=np.arange(6) == 2)
    assert drawn == [(0, 0, 0.3, 0.0), (1, 1, 0.0, -0.15), (1, 1, 0.0, 0.15)]


def test_policy_draws_staying_as_a_dot(ax):
    plotting.draw_policy(ax, np.ones((1, 1, 1)), moves=[(0, 0)])
    assert len(ax.lines) == 1


def test_policy_names_a_wrong_number_of_actions(ax):
    with pytest.raises(FigureError, match="policy over 4 moves"):
        plotting.draw_policy(ax, np.ones((2, 3, 5)) / 5)


def test_spread_draws_the_middle_and_the_band(ax):
    ys = np.array([[0.0, 0.0], [1.0, 10.0], [5.0, 20.0]])
    band = plotting.spread(ax, [0, 1], ys, label="three seeds", band=(0, 1), color="#0072B2")
    assert ax.lines[0].get_ydata().tolist() == [1.0, 10.0]
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == 0.0 and corners[:, 1].max() == 20.0
    plotting.spread(ax, [0, 1], ys, center="mean")
    assert ax.lines[1].get_ydata().tolist() == [2.0, 10.0]


@pytest.mark.parametrize(
    ("ys", "center", "match"),
    [(np.zeros(2), "median", "one row for each seed"), (np.zeros((3, 2)), "mode", "neither")],
)
def test_spread_names_what_is_wrong(ax, ys, center, match):
    with pytest.raises(FigureError, match=match):
        plotting.spread(ax, [0, 1], ys, center=center)
