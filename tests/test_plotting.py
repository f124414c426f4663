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


def test_a_caption_is_stored_beside_the_alt_text(monkeypatch):
    shown = []
    figure, _ = plt.subplots()
    monkeypatch.setattr("irlbook.plotting.publish", lambda data, said: shown.append((data, said)))
    plotting.show(figure, alt="Two lines. They cross.", caption="Error\n  against steps.")
    ((data, said),) = shown
    assert said == {
        "image/png": {"alt": "Two lines. They cross.", "caption": "Error against steps."}
    }
    assert data["text/plain"] == "Figure: Two lines. They cross."


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


def test_maps_that_are_compared_get_one_scale_that_walls_do_not_move():
    scale = plotting.shared_scale(np.array([[1.0, np.nan]]), np.array([-2.0, 3.0]))
    assert scale == {"vmin": -2.0, "vmax": 3.0}
    with pytest.raises(FigureError, match="no value is finite"):
        plotting.shared_scale(np.full(3, np.nan))


def test_a_colour_bar_says_its_unit_and_speaks_for_all_axes():
    figure, axes = plt.subplots(1, 2)
    image = plotting.heatmap(axes[0], np.eye(2))
    bar = plotting.color_bar(image, axes, "value, reward units")
    assert bar.ax.get_ylabel() == "value, reward units" and bar.mappable is image
    with pytest.raises(FigureError, match="needs its unit"):
        plotting.color_bar(image, axes[0], " ")
    plt.close(figure)


def words(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def test_a_world_of_states_holds_each_state_and_move_and_bends_to_and_fro_apart(ax):
    places = {"fresh": (0, 0), "tired": (3, 0)}
    moves = [("fresh", "tired", "work"), ("tired", "fresh", "rest"), ("fresh", "fresh", "idle")]
    plotting.draw_states(ax, places, moves)
    assert sorted(words(ax)) == ["fresh", "idle", "rest", "tired", "work"]
    height = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert height["work"] > 0 > height["rest"] and height["idle"] > height["work"]
    with pytest.raises(FigureError, match="'gone', which has no place"):
        plotting.draw_states(ax, places, [("fresh", "gone", "x")])


def test_a_loop_holds_its_boxes_clockwise_and_its_arrows(ax):
    plotting.draw_loop(ax, ["sample", "judge", "learn"], ["text", "label", "policy"])
    assert sorted(words(ax)) == sorted(["sample", "judge", "learn", "text", "label", "policy"])
    at = {text.get_text(): text.get_position() for text in ax.texts}
    assert at["sample"][1] > at["judge"][1] and at["judge"][0] > at["learn"][0]
    assert at["text"][0] > 0 > at["policy"][0]
    with pytest.raises(FigureError, match="3 boxes with 1 words"):
        plotting.draw_loop(ax, ["a", "b", "c"], ["x"])


def test_the_lines_of_the_palette_differ_in_lightness_or_are_told_apart_by_colour_blind_readers():
    """Okabe and Ito's eight, in the simulations of Machado et al. (2009) for full severity."""
    simulated = {
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    }
    rgb = np.array([to_rgb(colour) for colour in plotting.COLORS.values()])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for matrix in (np.eye(3), *map(np.array, simulated.values())):
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.4)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)
        assert apart[np.triu_indices(len(seen), 1)].min() > 0.12
