"""A limit on length: nothing is cut unseen, and no cut response is given an end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlbook.data import Demonstration, Preference, Unpaired, fit_response, length_report
from irlbook.errors import InvalidHyperparameterError


def ids(text):
    return [ord(letter) for letter in text]


def test_by_hand():
    records = [
        Preference("pp", "abc", "abd"),  # 2 + 3 + 1
        Preference("pp", "abcd", "abce"),  # 2 + 4 + 1: cut to equals
        Preference("pp", "abcd", "b"),  # cut, but different
        Preference("pppppp", "a", "b"),  # no room
        Demonstration("pp", "abcd"),
        Unpaired("pp", "abc", True),
    ]
    report = length_report(records, ids, ids, max_length=6)
    assert (report.no_room, report.truncated, report.made_identical) == ([3], [1, 2, 4], [])
    assert report.longest == 8 and report.keep() == [0, 5]
    tighter = length_report(records, ids, ids, max_length=4)
    assert tighter.made_identical == [0, 1] and tighter.keep() == []
    assert "lose the end of a response, 2 pairs become identical" in str(tighter)
    assert length_report([], ids, ids, 1).keep() == []
    with pytest.raises(InvalidHyperparameterError, match="at least 1"):
        length_report(records, ids, ids, 0)


@given(st.integers(0, 9), st.text(max_size=9), st.integers(1, 12))
def test_a_response_is_whole_with_its_end_or_cut_without(prompt, text, most):
    fitted = fit_response(prompt, ids(text), most)
    assert fitted.ids == tuple(ids(text)[: len(fitted.ids)])
    assert len(fitted.ids) + fitted.ended <= max(0, most - prompt)
    assert fitted.ended == (prompt + len(text) + 1 <= most)
    if not fitted.ended:
        assert prompt + len(fitted.ids) >= most or len(fitted.ids) == len(text)


@given(
    st.lists(st.tuples(st.text(max_size=4), st.text(max_size=5), st.text(max_size=5))),
    st.integers(1, 10),
)
def test_every_pair_is_in_one_place(triples, most):
    records = [Preference(*triple) for triple in triples]
    report = length_report(records, ids, ids, most)
    everywhere = report.keep() + report.no_room + report.truncated
    assert sorted(everywhere) == list(range(len(records)))
    assert set(report.made_identical) <= set(report.truncated)
    for i in report.keep():
        assert len(records[i].prompt) + max(len(records[i].chosen), len(records[i].rejected)) < most
