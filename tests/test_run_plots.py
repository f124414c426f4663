"""Pictures of runs: what is drawn, what is called normal, and what is said of damaged runs."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from irlbook.errors import MetricsError
from irlbook.run_plots import LABELS, draw_runs, in_words, normal_ranges, read_run, smoothed
from irlbook.training.metrics_file import read_metrics

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(tmp_path):
    """A run's folder with these rows in its metrics.csv."""

    def write(name: str, rows: list[dict[str, float]], objective: str = "") -> Path:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = [",".join(str(row.get(key, "")) for key in columns) for row in rows]
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.csv").write_text("\n".join([",".join(columns), *lines]) + "\n")
        if objective:
            state = folder / "checkpoints" / "step-00000001" / "state.json"
            state.parent.mkdir(parents=True)
            state.write_text(json.dumps({"objective": objective}))
        return folder

    return write


def online(steps: int = 20, **columns: float) -> list[dict[str, float]]:
    """A healthy run of RLOO on the book's model; a column may be given its end value."""
    ends = {"reward": 1.0, "gold": 1.1, "kl": 1.0, "entropy": 0.9, "length": 19.0, "ended": 1.0}
    ends |= {"loss": 0.5, "grad_norm": 3.0, "clip_fraction": 0.0, **columns}
    starts = {"kl": 0.0, "reward": 0.0, "gold": 0.1, "entropy": 1.0, "length": 20.0, "ended": 1.0}
    starts |= {"loss": 0.5, "grad_norm": 2.0, "clip_fraction": 0.0}
    share = np.linspace(0, 1, steps)
    return [
        {"step": i + 1, **{k: starts[k] + s * (e - starts[k]) for k, e in ends.items()}}
        for i, s in enumerate(share)
    ]


DPO = "PreferenceConfig(loss='dpo', beta=0.3)"
PAIR = {"loss": math.log(2), "margin": 0.0, "accuracy": 0.5, "chosen_reward": 0.0}
KINDS = {
    "sft": ([{"step": 1, "loss": 2.0, "logp": -40.0}, {"step": 2, "loss": 1.5, "logp": -30.0}], ""),
    "reward": ([{"step": i, "loss": 0.69, "margin": 0.1, "accuracy": 0.5} for i in (1, 2)], ""),
    "dpo": ([{"step": i, **PAIR} for i in (1, 2)], DPO),
    "preferences": ([{"step": i, **PAIR} for i in (1, 2)], DPO.replace("dpo", "simpo")),
    "online": (online(), ""),
    "rounds": ([{"step": i, "reward": i, "kl": i, "ended": 1, "kept": 4} for i in (0, 1)], ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_measured_says_which_training_it_was(run, kind):
    rows, objective = KINDS[kind]
    record = read_run(run("r", rows, objective))
    assert (record.name, record.kind) == ("r", kind)
    figure = draw_runs([record])
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    measured = {LABELS[key] for key in rows[0] if key in LABELS}
    assert set(titles) == measured and titles == sorted(titles, key=list(LABELS.values()).index)


def test_the_lines_are_the_numbers_of_the_file_and_their_running_mean(run):
    rows = [
        {"step": i, "loss": float(v)} for i, v in enumerate(np.random.default_rng(0).random(40))
    ]
    figure = draw_runs([read_run(run("r", rows))])
    thin, thick = figure.axes[0].lines[:2]
    values = [row["loss"] for row in rows]
    assert list(thin.get_ydata()) == values
    by_hand = [np.mean(values[max(0, i - 3) : i + 1]) for i in range(40)]  # a tenth of 40 rows
    np.testing.assert_allclose(thick.get_ydata(), by_hand)
    np.testing.assert_allclose(smoothed(np.array(values)), by_hand)


def test_held_out_numbers_are_dashed_in_the_same_panel(run):
    rows = [{"step": 0, "held_out_loss": 0.7}, {"step": 1, "loss": 0.6}, {"step": 2, "loss": 0.5}]
    rows += [{"step": 2, "held_out_loss": 0.65}]
    plain, dashed = draw_runs([read_run(run("r", rows))]).axes[0].lines[:2]
    assert (plain.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    assert list(dashed.get_ydata()) == [0.7, 0.65] and "held out" in dashed.get_label()


def test_several_runs_have_a_colour_and_a_name_each(run):
    records = [read_run(run(name, online())) for name in ("one", "two")]
    figure = draw_runs(records)
    assert len({line.get_color() for line in figure.axes[0].lines}) == 2
    assert {"one", "two"} <= {text.get_text() for text in figure.legends[0].texts}


def test_a_panel_that_one_run_has_is_drawn_for_this_one_alone(run):
    with_gold, without = online(), [{k: v for k, v in r.items() if k != "gold"} for r in online()]
    records = [read_run(run("a", with_gold)), read_run(run("b", without))]
    (panel,) = [a for a in draw_runs(records).axes if a.get_title() == LABELS["gold"]]
    assert {line.get_label() for line in panel.lines if line.get_label()[0] != "_"} == {"a"}
    assert list(in_words(records[1]))[-1] == "left out: gold; give --gold to measure it"


# Is this normal? ----------------------------------------------------------------------------------


def test_a_healthy_run_is_normal_in_every_range(run):
    (line,) = in_words(read_run(run("r", online())))
    assert line.startswith("normal: reward +0.947 since the start, kl 0 at the start, kl 0.974")


@pytest.mark.parametrize(
    ("column", "end", "said"),
    [
        ("kl", 40.0, "look at: kl 38.9 at the end; 0.3 to 3 is normal on the book's model."),
        ("kl", -1.0, "wrong sign"),
        ("reward", -1.0, "reward -0.947 since the start; 0 or more is normal"),
        ("entropy", 0.0, "look at: entropy 0.027 times its start at the end; 0.6 to 1.4"),
        ("length", 60.0, "does the reward pay for length"),
        ("grad_norm", 60.0, "tenfold"),
        ("clip_fraction", 0.9, "too many epochs"),
        ("ended", 0.1, "the end token has lost its credit"),
    ],
)
def test_a_fault_of_chapter_13_is_seen(run, column, end, said):
    found = [
        line for line in in_words(read_run(run("r", online(**{column: end})))) if "look" in line
    ]
    assert len(found) == 1 and said in found[0] and "chapter 13" in found[0]


def test_dpo_starts_at_log_2_and_a_start_elsewhere_is_seen(run):
    rows, _ = KINDS["dpo"]
    assert "loss 0.693 at the start" in next(
        line for line in in_words(read_run(run("a", rows, DPO))) if line.startswith("normal")
    )
    off = [{**row, "loss": 0.9} for row in rows]
    assert any(
        "look at: loss 0.9 at the start" in x for x in in_words(read_run(run("b", off, DPO)))
    )
    other = DPO.replace("dpo", "ipo")  # whose loss starts where beta says
    assert not any("loss" in x for x in in_words(read_run(run("c", off, other))))


def test_the_end_is_judged_on_held_out_data_where_there_are_any(run):
    rows, _ = KINDS["reward"]
    more = [{**row, "loss": 0.5, "held_out_loss": 0.71} for row in rows]
    assert any(
        "look at: loss 0.71 at the end" in line for line in in_words(read_run(run("r", more)))
    )


def test_every_range_names_a_place_that_is_in_its_chapter():
    assert len(normal_ranges()) >= 15
    for row in normal_ranges():
        number, place = re.fullmatch(r"chapter (\d+): (.+)", row.source).groups()
        (path,) = (ROOT / "chapters").glob(f"{int(number):02}_*.ipynb")
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        if section := re.fullmatch(r"section (\d+)", place):
            assert re.search(rf"^## {section[1]}\b", text, re.MULTILINE), row.source
        else:
            assert place in text, row.source
        assert row.low <= row.high and row.column in LABELS and row.meaning
        assert row.moment in ("start", "end", "all") and row.measure in ("value", "ratio", "rise")


def test_a_range_that_the_run_misses_is_in_the_picture_all_the_same(run):
    figure = draw_runs([read_run(run("r", online(kl=0.05)))])
    (panel,) = [ax for ax in figure.axes if ax.get_title() == LABELS["kl"]]
    assert panel.get_ylim()[1] > 0.3  # where normal begins


# Unfinished and damaged runs ----------------------------------------------------------------------


def test_a_killed_run_is_drawn_as_far_as_it_went(run):
    folder = run("r", online())
    with open(folder / "metrics.csv", "a") as file:
        file.write("21,0.5,0.")  # the row that the kill cut off
    assert read_run(folder).rows[-1]["step"] == 20


def test_numbers_that_are_not_finite_are_left_open_and_said(run):
    rows = online()
    rows[5]["kl"] = math.nan
    rows[6]["kl"] = math.inf
    record = read_run(run("r", rows))
    assert len(record.series("kl")[0]) == 18
    assert any("not finite in places" in line and " kl" in line for line in in_words(record))
    draw_runs([record])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("step,loss\n1,0.5\n2,abc\n", "line 3: 'abc' in column loss is no number"),
        ("step,loss\n1,0.5\n2\n3,0.1\n", "line 3: 1 cells under 2 columns"),
        ("step,loss\n1,0.5,7\n", "line 2: 3 cells under 2 columns"),
        ("step,loss\n1.5,0.5\n", "line 2: the step is no whole number"),
        ("step,loss\n,0.5\n", "line 2: the step is no whole number"),
        ("step,loss\nnan,0.5\n", "line 2: the step is no whole number"),
        ("loss,kl\n1,0.5\n", "no column step"),
        ('step,loss\n1,"0.5\n', "damaged"),
        ("step,loss\n", "no rows yet"),
        ("", "no rows yet"),
    ],
)
def test_a_damaged_table_is_named_with_its_line(tmp_path, text, named):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(MetricsError, match=re.escape(named)) as caught:
        read_run(tmp_path)
    assert "metrics.csv" in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"step,loss\n\xff\xfe\n")
    with pytest.raises(MetricsError, match="is no text"):
        read_metrics(tmp_path / "metrics.csv")


def test_a_folder_of_runs_names_them(run, tmp_path):
    run("runs/one", online())
    with pytest.raises(MetricsError, match="Runs in it: one"):
        read_run(tmp_path / "runs")
    assert read_run(tmp_path / "runs" / "one" / "metrics.csv").name == "one"


# The command --------------------------------------------------------------------------------------


def test_plot_writes_a_picture_beside_the_run_and_says_what_comes_next(run, call):
    folder = run("my run", online())
    code, out, err = call("plot", folder)
    assert code == 0, err
    assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")
    assert out.splitlines()[0] == "my run: 20 rows, to step 20"
    assert f"next: irlbook sample '{folder}' --prompt" in out


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_plot_takes_several_runs_and_a_name(run, call, tmp_path, suffix):
    out = tmp_path / "pictures" / f"all.{suffix}"
    runs = run("a", online()), run("b", KINDS["reward"][0])
    assert call("plot", *runs, "--out", out)[0] == 0
    assert out.stat().st_size > 1000


def test_plot_refuses_what_it_cannot_draw_in_one_line(run, call, tmp_path):
    folder = run("a", online())
    for wrong in ([folder, "--out", "a.gif"], [tmp_path / "none"], [folder, tmp_path]):
        code, out, err = call("plot", *wrong)
        assert code in (1, 2) and err.startswith("error: ") and err.count("\n") == 1
