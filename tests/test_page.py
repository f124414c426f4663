"""The measures of a page are those of what is on it; code that serves is told from code that
teaches."""

import pytest
from nbformat.v4 import new_output
from notebook_builder import figure, notebook

from irlbook.authoring import page
from irlbook.authoring.notebooks import HIDDEN, normalise


def folded(nb, *places):
    for place in places:
        nb.cells[place].metadata["tags"] = [HIDDEN]
    return nb


def test_the_share_is_that_of_the_code_that_is_seen():
    nb = notebook("# A\n\n" + "w" * 880, "x = 1\n" * 10, "y = 2\n" * 30)
    text, code, longer = 66 + 20 + 20 + 260, 10 * 17.5 + 38, 30 * 17.5 + 38
    seen = page.measure(nb)
    assert seen.height == pytest.approx(text + code + longer)
    assert seen.visible == pytest.approx((code + longer) / seen.height)
    assert (seen.longest, seen.longest_visible, seen.folded, seen.cells) == (30, 30, 0, 2)
    part = page.measure(folded(nb, 2))
    assert part.height == pytest.approx(text + code + 44)
    assert part.visible == pytest.approx(code / part.height)
    assert (part.longest, part.longest_visible, part.folded, part.cells) == (30, 10, 1, 2)


def test_what_code_printed_and_drew_counts_as_page():
    nb = notebook("x = 1")
    bare = page.measure(nb).height
    nb.cells[0].outputs = [new_output("stream", text="a\nb\n"), figure()]
    assert page.measure(nb).height == pytest.approx(bare + 2 * 17.5 + 20 + 1 + 20)


def test_a_displayed_equation_and_a_table_have_their_own_heights():
    assert page.measure(notebook("# A\n\nb\n\n$$x\n= y$$\n\nc")).height == pytest.approx(
        66 + 20 + 26 + 20 + 62 + 26 + 20
    )
    assert page.measure(notebook("# A\n\n| a |\n|---|\n| b |")).height == pytest.approx(
        66 + 20 + 3 * 38 + 20
    )


def test_terms_are_what_is_set_in_emphasis_once():
    text = (
        "# A\n\nThe *state* and the *start state*, **not this**, the *state* and $a*b*c$ 2 * 3 * 4"
    )
    assert page.measure(notebook(text)).terms == 2


@pytest.mark.parametrize(
    "source",
    [
        "fig, ax = plt.subplots()\nax.plot(x)\nplotting.show(fig, alt='a line')",
        "fig, axes = plt.subplots(1, 2)\nfor ax, y in zip(axes, ys):\n    ax.plot(y)",
        "axes[0].set_title('a')\nplotting.heatmap(ax, values)",
        "stats.verdict('it rises', b > a)\nassert a < b",
        "np.testing.assert_allclose(a, b)",
        "stats.published_table([PublishedResult('A 2000', 't', 1, ours, 'agrees')])",
        "display.show_table(['a'], rows)",
        "claims.show()",
        "for name, value in found.items():\n    print(name, value)",
    ],
)
def test_code_that_plots_asserts_or_tabulates_serves(source):
    assert page.serves(source)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x = solve(mdp)\nprint(x)",
        "def backup(v):\n    return v.max()",
        "import numpy as np",
        "claims.paired('it rises', b, a)",
        "for seed in range(5):\n    runs.append(train(seed))\nprint(runs)",
        "x =",
    ],
)
def test_code_that_computes_is_left_to_judgement(source):
    assert not page.serves(source)


def test_the_build_folds_in_jupyterlab_what_is_tagged_and_unfolds_the_rest():
    nb = folded(notebook("# A", "x = 1", "y = 2"), 0, 1)
    nb.cells[2].metadata["jupyter"] = {"source_hidden": True}
    normalise(nb)
    assert nb.cells[1].metadata == {"tags": [HIDDEN], "jupyter": {"source_hidden": True}}
    assert nb.cells[0].metadata == {"tags": [HIDDEN]} and nb.cells[2].metadata == {}


def test_the_report_has_a_line_for_each_chapter_and_the_faults_of_one(capsys):
    assert page._report([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["chapter", "visible", "code"]
    assert [line[:2] for line in lines[1:3]] == ["00", "01"]
    page._report(["00"])
    assert all(line.startswith("00_tour: ") for line in capsys.readouterr().out.splitlines())
