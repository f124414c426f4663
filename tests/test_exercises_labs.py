"""Labs: units of their own, figures as data, a whole that is run under its own limit of time."""

from __future__ import annotations

import csv
import dataclasses

import nbformat
import numpy as np
import pytest
from exercises_demo import HINTS

from irlbook.errors import CheckFailed, CodecError, InvalidExerciseError
from irlbook.exercises import Criterion, Edit, Exercise, codec, figures, grading, marks, model
from irlbook.exercises import release as releasing
from irlbook.exercises.answers import Answer, borrowed, local_answer
from irlbook.exercises.expect import (
    expect,
    expect_close,
    expect_line,
    expect_picture,
    expect_points,
    expect_vertical_line,
)
from irlbook.exercises.extract import parse_cells
from irlbook.exercises.sandbox import Worker


def check_slope(answer, rng):
    x, y = rng.normal(size=(2, 20))
    expect_close(answer(2.0, x, y), (x * (2 * x - y)).mean(), property="the slope", hint="chain")


def check_train(answer, rng):
    seed = int(rng.integers(1000))
    weight = float(answer(seed))
    x = rng.normal(size=50)
    expect(np.mean((weight * x - 3 * x) ** 2) < 0.01, property="it has learnt", hint="go on")
    expect(weight == answer(seed), property="the seed decides", hint="use default_rng(seed)")


def check_draw(answer, rng):
    losses = rng.uniform(size=7)
    (panel,) = expect_picture(answer(losses), hint="one pair of axes").axes
    expect_line(panel, np.arange(7), losses, property="the losses are drawn", hint="plot them")
    expect(panel.yscale == "log", property="the loss is on a logarithmic axis", hint="set_yscale")


LAB = [
    Exercise(
        id="90L.1",
        title="A slope",
        function="slope",
        points=2,
        difficulty=1,
        minutes=5,
        importance=3,
        goal="You can differentiate.",
        hints=HINTS,
        check=check_slope,
        wrong_answers={
            "sign": (Edit("(x *", "(-x *"), "slope"),
            "sum": (Edit(".mean()", ".sum()"), "slope"),
            "no x": (Edit("(x *", "(1 *"), "slope"),
            "no target": (Edit("- y", ""), "slope"),
            "vector": (Edit(".mean()", ""), "single number"),
        },
    ),
    Exercise(
        id="90L.2",
        title="The whole",
        function="train",
        points=3,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can train.",
        hints=HINTS,
        check=check_train,
        rounds=1,
        seconds=30.0,
        without=("irlbook.rl",),
        wrong_answers={
            "no step": (Edit("200", "0"), "learnt"),
            "up": (Edit("w -=", "w +="), "learnt|finite|NaN"),
            "small steps": (Edit("RATE *", "1e-6 *"), "learnt"),
            "no seed": (Edit("default_rng(seed)", "default_rng()"), "seed decides"),
            "borrowed": (Edit("w = 0.0", "w = gae.__defaults__ or 0.0"), "irlbook.rl"),
        },
    ),
    Exercise(
        id="90L.3",
        title="A picture",
        function="draw",
        kind="figure",
        points=2,
        difficulty=1,
        minutes=10,
        importance=3,
        goal="You can draw a learning curve.",
        hints=HINTS,
        check=check_draw,
        wrong_answers={
            "no label": (Edit('ax.set_xlabel("step")', "pass"), "x axis"),
            "linear": (Edit('"log"', '"linear"'), "logarithmic"),
            "other data": (Edit("plot(losses)", "plot(losses[::-1])"), "losses are drawn"),
            "nothing returned": (Edit("return fig", "return None"), "returns a Matplotlib figure"),
            "two panels": (Edit("subplots()", "subplots(1, 2)[0], plt.gca()"), "1 panel"),
        },
    ),
    Exercise(
        id="90L.4",
        title="What it shows",
        kind="written",
        points=2,
        difficulty=1,
        minutes=10,
        importance=3,
        goal="You can read a curve.",
        hints=HINTS,
        rubric=(Criterion(2, "says that it falls"),),
    ),
]

SOLUTIONS = {
    "slope": """def slope(w, x, y):
    ### BEGIN SOLUTION
    return (x * (w * x - y)).mean()
    ### END SOLUTION""",
    "train": """def train(seed):
    ### BEGIN SOLUTION
    rng = np.random.default_rng(seed)
    w = 0.0
    for _ in range(200):
        x = rng.normal(size=8)
        w -= RATE * slope(w, x, 3 * x + 0.01 * rng.normal(size=8))
    return w
    ### END SOLUTION""",
    "draw": """def draw(losses):
    ### BEGIN SOLUTION
    fig, ax = plt.subplots()
    ax.plot(losses)
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    return fig
    ### END SOLUTION""",
}
SETUP = (
    "import matplotlib.pyplot as plt\nimport numpy as np\n"
    "from irlbook import exercises\nfrom irlbook.rl.advantages import gae\nRATE = 0.1"
)


def lab_notebook() -> nbformat.NotebookNode:
    new = nbformat.v4
    cells = [new.new_markdown_cell("# Lab 90"), new.new_code_cell(SETUP)]
    for exercise in LAB:
        cells.append(new.new_markdown_cell(f"<!-- card {exercise.id} -->\n\nDo it."))
        if exercise.kind == "written":
            cells.append(new.new_markdown_cell(f"<!-- answer {exercise.id} -->\nIt falls."))
            continue
        cells.append(new.new_code_cell(SOLUTIONS[exercise.function]))
        call = f'exercises.check("{exercise.id}", {exercise.function})'
        cells.append(new.new_code_cell(call))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02d}"
    return new.new_notebook(cells=cells)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The folders of a book whose only notebook is this lab."""
    monkeypatch.setattr(model, "_REGISTRY", {e.id: e for e in LAB})
    monkeypatch.setattr(
        releasing, "all_exercises", lambda c=None: [e for e in LAB if c in (None, e.chapter)]
    )
    (tmp_path / "solutions").mkdir()
    nbformat.write(lab_notebook(), tmp_path / "solutions" / "90_lab_demo.ipynb")
    return tmp_path / "solutions", tmp_path / "exercises"


def test_a_lab_is_released_and_verified_like_a_chapter(lab):
    (copy,) = releasing.release(*lab)
    assert copy.name == "90_lab_demo.ipynb"
    text = copy.read_text(encoding="utf-8")
    assert "SOLUTION" not in text and "90L-2-check" in text
    assert "at most 30 s of one core" in text
    assert releasing.verify(*lab, seeds=(1, 2)) == []


@pytest.mark.parametrize(
    "change, says",
    [
        ({"90L.2": {"seconds": 0.0}}, "runs the whole"),
        ({"90L.3": {"kind": "code"}}, "no exercise of kind 'figure'"),
    ],
)
def test_a_lab_runs_a_whole_and_asks_for_a_picture(lab, monkeypatch, change, says):
    changed = [dataclasses.replace(e, **change.get(e.id, {})) for e in LAB]
    monkeypatch.setattr(releasing, "all_exercises", lambda c=None: changed)
    assert any(says in line for line in releasing.verify(*lab, seeds=(1,)))


def test_the_chapter_of_a_file_is_told_from_its_lab():
    assert releasing.chapter_of("02_lab_ppo.ipynb") == "02L"
    assert releasing.chapter_of("02_labyrinth.ipynb") == "02"
    assert model.chapter_in("lab.ipynb") == ""
    assert model.full_id("2L.1") == "02L.1" and model.full_id("02L.1") == "02L.1"
    assert marks._exercises("2L.1") == {"02L.1", "02L.10"}
    with pytest.raises(InvalidExerciseError, match="02L.2|03L.2"):
        dataclasses.replace(LAB[0], id="90X.1")


def test_a_lab_is_graded_each_function_with_those_it_calls(lab, monkeypatch, tmp_path):
    (copy,) = releasing.release(*lab)
    monkeypatch.setattr("irlbook.exercises.submissions.all_exercises", releasing.all_exercises)
    folder = tmp_path / "submissions"
    for student in ("ann", "bob", "cem"):
        (folder / student).mkdir(parents=True)
    notebook = lab_notebook()
    nbformat.write(notebook, folder / "ann" / copy.name)
    notebook.cells[3].source = SOLUTIONS["slope"].replace("mean", "sum").replace("* (", "* 1e9 * (")
    nbformat.write(notebook, folder / "bob" / copy.name)
    (folder / "cem" / copy.name).write_bytes(copy.read_bytes())
    kept = {}
    original = grading.Worker

    def watched(name, pieces, **options):
        kept[name] = options["timeout"]
        return original(name, pieces, **options)

    monkeypatch.setattr(grading, "Worker", watched)
    summary = grading.grade(
        folder, tmp_path / "g.csv", seed=3, timeout=15, chapters=["90l"], allow_root=True
    )
    with summary.out_csv.open(encoding="utf-8-sig", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert [rows["ann"][f"90L.{i}"] for i in (1, 2, 3)] == ["2", "3", "2"]
    assert [rows["bob"][f"90L.{i}"] for i in (1, 2, 3)] == ["0", "0", "2"]
    assert [rows["cem"][f"90L.{i}"] for i in (1, 2, 3)] == ["0", "0", "0"]
    assert kept == {"slope": 15, "train": 30.0, "draw": 15}
    assert marks.written_path(summary.out_csv).read_text(encoding="utf-8-sig").count("90L.4")


def test_a_stub_that_the_answer_calls_is_named():
    def send(source):
        code = parse_cells([(1, SETUP), (2, source), (3, SOLUTIONS["train"])])
        worker = Worker("train", code.pieces("train"), timeout=20.0)
        with worker, pytest.raises(CheckFailed) as caught:
            Answer("train", worker.send)(1)
        return str(caught.value)

    assert "write the body of `slope`" in send("def slope(w, x, y):\n    raise NotImplementedError")


SOURCES = {
    "a name": "from irlbook.rl.advantages import gae\ndef f():\n    return gae is None",
    "a module": "import irlbook.rl.advantages as a\ndef f():\n    return a.gae is None",
    "within": "def f():\n    from irlbook.rl import advantages\n    return advantages is None",
    "through the package": "import irlbook\ndef f():\n    return irlbook.rl is None",
    "through a helper": "from irlbook.rl import gae\ndef g():\n    return gae\n"
    "def f():\n    return [g() for _ in range(2)] is None",
    "through a class": "from irlbook.rl import gae\n"
    "class G:\n    def g(self):\n        return gae\n"
    "def f():\n    return G() is None",
}


@pytest.mark.parametrize("form", SOURCES)
def test_what_would_do_the_work_is_seen_however_it_is_used(form):
    namespace = {"__name__": "answers"}
    exec(SOURCES[form], namespace)
    function = namespace["f"]
    assert "rl" in borrowed(function, ("irlbook.rl",))
    assert borrowed(function, ("irlbook.imitation", "irlbook.r")) == ""
    with pytest.raises(CheckFailed, match="your own functions"):
        local_answer(function, without=("irlbook.rl",))()
    assert local_answer(function)() is False


def test_the_graders_process_cannot_import_what_would_do_the_work():
    source = "def f():\n    import importlib\n    importlib.import_module('irlbook.rl.' + 'ppo')"
    code = parse_cells([(1, source)])
    worker = Worker("f", code.pieces("f"), without=("irlbook.rl",), timeout=20.0)
    with worker, pytest.raises(CheckFailed, match="ModuleNotFoundError"):
        Answer("f", worker.send)()


def test_a_late_local_run_is_told_of_the_graders_limit(monkeypatch, capsys):
    late = dataclasses.replace(LAB[1], seconds=1e-9, without=())
    monkeypatch.setattr(model, "_REGISTRY", {late.id: late})
    namespace = {"np": np, "RATE": 0.1}
    for name in ("slope", "train"):
        exec(SOLUTIONS[name], namespace)
    model.check("90L.2", namespace["train"])
    assert "the grader stops it after 1e-09 s" in capsys.readouterr().out


def test_a_figure_arrives_as_what_it_shows():
    import matplotlib.pyplot as plt

    fig, (left, right, bars) = plt.subplots(1, 3)
    left.plot([0, 1, 2], [3.0, 1.0, np.nan], label="loss")
    left.axhline(1.0)
    left.scatter([1, 2], [3, 4])
    left.vlines(2.0, 0.0, 5.0, label="end")
    left.fill_between([0, 1], [0, 0], [1, 1])
    left.legend()
    left.set(xlabel="step", ylabel="nats", title="A", yscale="log")
    image = right.imshow(np.eye(3))
    fig.colorbar(image)
    bars.bar([2, 1], [5.0, 4.0])
    picture = codec.loads(codec.dumps(fig))
    first, second, third = picture.axes
    assert (first.title, first.xlabel, first.ylabel, first.yscale) == ("A", "step", "nats", "log")
    assert first.legend == ("loss", "end")
    assert [line.label for line in first.lines] == ["loss", "", "end"]
    np.testing.assert_array_equal([first.lines[2].x, first.lines[2].y], [[2, 2], [0, 5]])
    np.testing.assert_array_equal(first.lines[0].y, [3.0, 1.0, np.nan])
    np.testing.assert_array_equal(first.points[0], [[1, 3], [2, 4]])
    assert len(first.points) == 1 and not first.images and not first.colorbar
    np.testing.assert_array_equal(second.images[0], np.eye(3))
    assert second.colorbar
    np.testing.assert_array_equal(third.bars, [4.0, 5.0])
    assert isinstance(codec.loads(codec.dumps(left)), figures.Picture)


def test_points_are_seen_where_they_are_marked():
    import matplotlib.pyplot as plt

    x, y = np.arange(3.0), np.array([3.0, 1.0, 2.0])
    drawings = {
        "scatter": lambda ax: ax.scatter(x, y),
        "dots": lambda ax: ax.plot(x, y, "."),
        "line and dots": lambda ax: ax.plot(x, y, "o-"),
        "line": lambda ax: ax.plot(x, y),
        "others": lambda ax: ax.scatter(x, y[::-1]),
        "none": lambda ax: None,
    }
    told = {}
    for name, draw in drawings.items():
        fig, ax = plt.subplots()
        draw(ax)
        (panel,) = codec.loads(codec.dumps(fig)).axes
        try:
            expect_points(panel, x, y, property="each is a point", hint="scatter")
        except CheckFailed as failure:
            told[name] = str(failure)
        plt.close(fig)
    assert set(told) == {"line", "others", "none"}
    assert "without markers" in told["line"] and "without markers" not in told["others"]


@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_a_line_by_axline_arrives_as_where_it_runs(slope):
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    ax.axline((0.0, 0.0), slope=slope)
    ax.set(xlim=(0.0, 2.0), ylim=(0.0, 2.0))
    (line,) = codec.loads(codec.dumps(fig)).axes[0].lines
    np.testing.assert_allclose(line.x, [0.0, 2.0], atol=1e-9)
    np.testing.assert_allclose(line.y, [0.0, 2.0 * slope], atol=1e-9)
    plt.close(fig)


def test_a_vertical_line_may_be_drawn_by_vlines():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    ax.vlines([3.0], 0.0, 1.0)
    (panel,) = codec.loads(codec.dumps(fig)).axes
    expect_vertical_line(panel, 3.0, property="the end is marked", hint="axvline")
    with pytest.raises(CheckFailed, match="marked"):
        expect_vertical_line(panel, 2.0, property="the end is marked", hint="axvline")
    plt.close(fig)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"axes": [1]},
        {"axes": [{"title": "x"}]},
        {"axes": [{**figures._panel(__import__("matplotlib.figure").figure.Figure().subplots())}]},
    ],
)
def test_a_forged_picture_is_refused(data):
    if data and isinstance(data["axes"][0], dict) and "bars" in data["axes"][0]:
        data["axes"][0]["bars"] = "many"
    with pytest.raises(CodecError):
        figures.picture(data)


def test_what_an_answer_draws_is_closed_whatever_it_returns():
    """A notebook would show it, and pyplot keep it, for every call of the check."""
    plt = pytest.importorskip("matplotlib.pyplot")
    own = plt.figure()
    for value in ("figure", None):

        def draw(value=value):
            figure = plt.figure()
            return figure if value else None

        local_answer(draw, "draw")()
    assert plt.get_fignums() == [own.number]
