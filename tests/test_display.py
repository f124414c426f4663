"""Tables and sentences fit the page, hold all that they were given, and come out the same again."""

from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlbook import display, stats
from irlbook.errors import ShapeError


class Reader(HTMLParser):
    """The rows of an HTML table, its attributes, and whether every element is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.rows, self.open, self.seen, self.text = [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.text = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("th", "td"):
            self.rows[-1].append(self.text)

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would be shown, one dict of media types for each display."""
    found = []
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda data, **k: found.append(data))
    return found


ROWS = [
    ['a <b> & "c"', 1.23456, 3],
    ["x" * 30 + " " + "y" * 50, -2.0, 12],
    ["$5 | _z_", np.float64(1e-9), 400],
]


def test_a_table_holds_its_cells_escaped_and_the_same_again(shown):
    display.show_table(["name", "mean", "n"], ROWS)
    display.show_table(["name", "mean", "n"], ROWS)
    assert shown[0] == shown[1]
    html = shown[0]["text/html"]
    assert "<script" not in html and "<b>" not in html
    reader = Reader(html)
    assert reader.open == []
    want = [["name", "mean", "n"]]
    want += [[str(a), f"{b:.4g}", str(c)] for a, b, c in ROWS]
    assert reader.rows == want
    kinds = [attrs.get("class") for tag, attrs in reader.seen if tag in ("th", "td")]
    assert kinds == [None, "number", "number"] * 4


def test_outside_of_a_notebook_the_text_is_printed(capsys):
    display.show_table(["a", "b"], [["x", 2]])
    assert capsys.readouterr().out == "a  b\n-  -\nx  2\n"


def test_numbers_stand_to_the_right_and_words_to_the_left():
    text = display.text_table(["name", "value"], [["a", "1.50"], ["long", "-10.25"]])
    assert text.splitlines() == [
        "name   value",
        "----  ------",
        "a       1.50",
        "long  -10.25",
    ]


WORDS = st.text("abc -é", max_size=70)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(WORDS, min_size=n, max_size=n))))
def test_no_line_is_too_wide_and_no_word_is_lost(rows):
    columns = len(rows[0]) if rows else 2
    text = display.text_table(["h"] * columns, rows)
    assert all(len(line) <= display.WIDTH for line in text.splitlines())
    letters = sorted(c for row in rows for cell in row for c in cell if c not in " -")
    body = text.splitlines()[2:]
    assert sorted(c for line in body for c in line if c not in " -") == letters


def test_a_row_that_does_not_fit_the_header_and_too_many_columns_are_refused():
    with pytest.raises(ShapeError, match="a row of 1 cells in a table of 2 columns"):
        display.show_table(["a", "b"], [["x"]])
    with pytest.raises(ShapeError, match="40 columns do not fit into 100"):
        display.text_table(["a"] * 40, [])


def test_a_long_sentence_goes_on_in_the_next_line(capsys):
    display.say("ok: short")
    display.say("ok: " + "word " * 30 + "end-of-it [0.1 to 0.2]")
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "ok: short" and len(rest) == 2
    assert all(len(line) <= 100 for line in rest) and rest[1].startswith("    word")
    assert " ".join(" ".join(rest).split()).endswith("word end-of-it [0.1 to 0.2]")


def test_the_published_table_shows_its_verdict_in_the_first_column(shown):
    row = stats.PublishedResult("Ng <1999>", "Theorem 1", "the same", 0.5, "does not reproduce: x")
    stats.published_table([row])
    reader = Reader(shown[0]["text/html"])
    assert reader.open == []
    assert reader.rows[1] == [
        "Ng <1999>, Theorem 1✗ does not reproduce: x",
        "theirs: the same",
        "ours: 0.5",
    ]
    assert shown[0]["text/plain"].splitlines()[2] == (
        "Ng <1999>  Theorem 1  the same   0.5  does not reproduce: x"
    )


@pytest.mark.parametrize(
    "verdict, mark",
    [
        ("agrees", "✓"),
        ("holds, loose at low beta", "✓"),
        ("same order", "≈"),
        ("agrees; none at k = 2", "✓"),
        ("agrees, but for one world", "≈"),
        ("same order; not established", "?"),
        ("for single models; not for the mean", "≈"),
        ("does not reproduce", "✗"),
        ("neither confirmed nor contradicted", "?"),
        ("a fall is not established", "?"),
        ("not tested at this scale", "?"),
        ("not its end over all policies", "✗"),
    ],
)
def test_the_mark_of_a_verdict_is_no_kinder_than_its_words(shown, verdict, mark):
    stats.published_table([stats.PublishedResult("A 2000", "t", "x", "y", verdict)])
    assert f"{mark} {verdict}" in shown[0]["text/html"]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("kind", ["yes", "part", "no", "open"])
def test_the_words_of_a_verdict_stand_out_from_their_colour(kind):
    """WCAG AA asks for a contrast of 4.5; both colours are given, so a dark theme changes none."""
    style = Reader(display.badge("x", kind)).seen[0][1]["style"]
    colours = dict(part.split(": ") for part in style.split("; "))
    dark, light = sorted(map(luminance, (colours["color"], colours["background-color"])))
    assert (light + 0.05) / (dark + 0.05) > 4.5
