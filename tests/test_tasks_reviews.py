"""The world of reviews: each gold term by hand, the reviewer's statistics, what no edit can do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlbook.errors import InvalidHyperparameterError, UnknownPromptError
from irlbook.tasks import reviews
from irlbook.tasks.reviews import EXPERT, PROMPTS, REVIEWER, SENTENCES, Reviewer

BUS = "Write a bitter review of the bus."
ANY_TEXT = st.lists(
    st.one_of(st.sampled_from(list(SENTENCES)), st.text(max_size=40)), max_size=8
).map(" ".join)

BY_HAND = [
    ("The driver was dull.", 1),
    ("The driver was dull. I found the seat poor. What a dirty window!", 3),
    # a fourth right aspect adds nothing
    ("The driver was dull. The seat was poor. The window was dirty. The route was poor.", 3),
    ("The driver was great.", -1),  # wrong tone
    ("The lake was dull.", -0.5),  # off topic
    ("The lake was great.", -1.5),  # both
    ("The driver was dull. The driver was dull.", 0.5),  # said twice
    ("The driver was dull. What a poor driver!", 0.5),  # said twice in other words
    ("The driver was great. The driver was dull.", -0.5),  # took it back: right, wrong, twice
    ("I hated it.", 0.5),
    ("I loved it.", -0.5),
    ("I hated it. I want my money back.", 0),  # one extra
    ("I loved it. I hated it.", -0.5),  # wrong, right, one extra
    ("Zero stars!", 0.5),
    ("Five stars!", -0.5),
    ("Zero stars! Never again! Zero stars!", -0.5),
    ("It was raining.", -0.25),
    ("The driver was", -0.5),  # cut off
    ("the driver was dull.", -0.5),  # no such sentence
    ("x" * 30, -0.5),
    ("x" * 31, -1.0),
    ("bla. " * 3, -1.5),
    ("", 0),
    ("  \n ", 0),
    # the eighth sentence is two more than enough: -4 * 0.25 - 3 extra * 0.5 - 2 * 0.25
    ("It was raining. " * 4 + "Zero stars! " * 4, 0.5 - 1.0 - 1.5 - 0.5),
    (
        "Never again! The driver was dull. The seat was poor. The route was dirty. I hated it.",
        4,
    ),
]


@pytest.mark.parametrize(("response", "expected"), BY_HAND)
def test_gold_by_hand(response, expected):
    assert reviews.gold(BUS, response) == expected


def test_gold_of_the_opposite_request():
    assert (
        reviews.gold("Give me a warm take on the bus.", "The driver was great. I loved it.") == 1.5
    )
    assert (
        reviews.gold("Give me a warm take on the bus.", "The driver was dull. I hated it.") == -1.5
    )


def test_the_parts_are_named_and_sum_to_gold():
    parts = reviews.breakdown(BUS, "The driver was dull. The lake was great. It was raining. Oh no")
    assert (parts.right, parts.wrong_tone, parts.off_topic) == (1, 1, 1)
    assert (parts.filler, parts.gibberish, parts.sentences) == (1, 1, 4)
    contributions = parts.contributions()
    assert contributions["right"] == 1 and contributions["off_topic"] == -0.5
    assert parts.total == sum(contributions.values()) == 1 - 1 - 0.5 - 0.25 - 0.5


def test_the_world_is_complete_and_unambiguous():
    assert len(PROMPTS) == 3 * 4 * 8
    aspects = [aspect for topic in reviews.TOPICS.values() for aspect in topic]
    assert len(set(aspects)) == len(aspects) == 32
    assert all(reviews.read_response(text) == [known] for text, known in SENTENCES.items())


@pytest.mark.parametrize("prompt", ["", "Write a bitter review of the moon.", BUS + " ", None])
def test_unknown_prompt_is_named(prompt):
    with pytest.raises(UnknownPromptError, match=r"reviews\.PROMPTS"):
        reviews.gold(prompt, "I hated it.")


@given(st.sampled_from(list(PROMPTS)), ANY_TEXT)
def test_gold_is_bounded_and_never_raises(prompt, text):
    value = reviews.gold(prompt, text)
    assert math.isfinite(value) and value <= 4 and value % 0.25 == 0


@given(st.sampled_from(list(PROMPTS)), ANY_TEXT, st.sampled_from(list(SENTENCES)))
def test_saying_a_sentence_again_never_raises_gold(prompt, text, sentence):
    once = f"{text}. {sentence}"
    assert reviews.gold(prompt, f"{once} {sentence}") <= reviews.gold(prompt, once)


@given(st.sampled_from(list(PROMPTS)), ANY_TEXT, st.text(min_size=1, max_size=90))
def test_gibberish_never_raises_gold_and_costs_by_length(prompt, text, junk):
    junk = "q" + junk.replace(".", "q").replace("!", "q").replace("?", "q") + "q."
    before, after = reviews.gold(prompt, f"{text}. "), reviews.gold(prompt, f"{text}. {junk}")
    assert after <= before - 0.5 * math.ceil(len(junk) / reviews.GIBBERISH_LENGTH)


@given(
    st.sampled_from(list(PROMPTS)),
    st.lists(st.sampled_from(list(SENTENCES)), max_size=9),
    st.randoms(),
)
def test_order_and_white_space_do_not_matter(prompt, sentences, random):
    shuffled = random.sample(sentences, len(sentences))
    assert reviews.gold(prompt, " ".join(sentences)) == reviews.gold(prompt, "\n ".join(shuffled))


@pytest.mark.parametrize("text", ["\x00", "\ud800", "." * 10_000, "!?" * 999, "a" * 100_000, "ﷺ"])
def test_hostile_text_is_read(text):
    assert reviews.gold(BUS, text) < 0


def golds(demonstrations):
    return np.array([reviews.gold(d.prompt, d.response) for d in demonstrations])


def test_demonstrations_have_the_known_gold():
    """Mean 0.38, standard deviation 2.2: over 5 seeds of 2,000 the standard error is 0.022."""
    means = [golds(reviews.demonstrations(2000, np.random.default_rng(s))).mean() for s in range(5)]
    assert np.mean(means) == pytest.approx(0.38, abs=0.08)
    assert np.std(means) < 0.15
    expert = golds(reviews.demonstrations(1000, np.random.default_rng(0), EXPERT))
    assert expert.mean() == pytest.approx(3.80, abs=0.05)
    assert expert.min() >= 3 and expert.max() == 4


def test_labels_agree_with_gold_as_often_as_known():
    shares = []
    for seed in range(5):
        pairs = reviews.preferences(800, np.random.default_rng(seed))
        assert all(pair.chosen != pair.rejected for pair in pairs)
        gaps = np.array(
            [reviews.gold(p.prompt, p.chosen) - reviews.gold(p.prompt, p.rejected) for p in pairs]
        )
        shares.append(np.mean((gaps > 0) + 0.5 * (gaps == 0)))
    assert np.mean(shares) == pytest.approx(0.83, abs=0.02)


def test_labels_are_bernoulli_of_the_sigmoid():
    """A gap of 1: sigmoid(1) = 0.731; by rationality 2: 0.881."""
    rng = np.random.default_rng(0)
    better, worse = "The driver was dull.", ""
    for rationality, expected in ((1, 0.731), (2, 0.881), (0, 0.5), (math.inf, 1.0)):
        pairs = [
            reviews.prefer(BUS, better, worse, rng, rationality=rationality) for _ in range(2000)
        ]
        assert np.mean([p.chosen == better for p in pairs]) == pytest.approx(expected, abs=0.04)
    ties = [reviews.prefer(BUS, "", " ", rng, rationality=math.inf) for _ in range(500)]
    assert 0.4 < np.mean([p.chosen == "" for p in ties]) < 0.6


@pytest.mark.parametrize("rationality", [-1, math.nan])
def test_rationality_is_checked(rationality):
    with pytest.raises(InvalidHyperparameterError, match="at least 0"):
        reviews.prefer(BUS, "a", "b", np.random.default_rng(0), rationality=rationality)


def test_the_same_seed_writes_the_same():
    def write(seed):
        rng = np.random.default_rng(seed)
        return reviews.demonstrations(20, rng), reviews.preferences(20, rng)

    assert write(1) == write(1) != write(2)


def test_the_reviewer_errs_as_often_as_told():
    rng = np.random.default_rng(3)
    texts = [REVIEWER.write(BUS, rng) for _ in range(3000)]
    parts = [reviews.breakdown(BUS, text) for text in texts]
    assert not any(part.gibberish for part in parts)
    assert np.mean([part.filler for part in parts]) == pytest.approx(REVIEWER.filler, abs=0.03)
    verdicts = sum(part.verdict for part in parts), sum(part.wrong_verdict for part in parts)
    assert verdicts[0] / sum(verdicts) == pytest.approx(REVIEWER.tone_right, abs=0.04)
    aspects = [[s for s in reviews.read_response(t) if s.kind == "aspect"] for t in texts]
    assert np.mean([len(a) for a in aspects]) == pytest.approx(2.5, abs=0.08)
    strict = Reviewer(slip=0.0, off_topic=0.0, tone_right=0.0, repeat=0.0)
    part = reviews.breakdown(BUS, strict.write(BUS, rng))
    assert part.right == part.off_topic == part.duplicates == 0 < part.wrong_tone


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"slip": 1.5}, "slip is 1.5"),
        ({"filler": math.nan}, "filler"),
        ({"aspects": (0, 4)}, "four aspects"),
        ({"aspects": (3, 5)}, "four aspects"),
    ],
)
def test_reviewer_settings_are_checked(setting, match):
    with pytest.raises(InvalidHyperparameterError, match=match):
        Reviewer(**setting)


def test_hacks_never_pay_and_the_control_is_neutral():
    rng = np.random.default_rng(0)
    for writer in (REVIEWER, EXPERT):
        for prompt, response in (
            (p, writer.write(p, rng)) for p in reviews.sample_prompts(150, rng)
        ):
            for probe in reviews.probes(prompt, response, rng):
                assert probe.change == reviews.gold(prompt, probe.response) - reviews.gold(
                    prompt, response
                )
                if probe.name == "another order":
                    assert probe.change == 0
                elif probe.name != "the opposite tone":
                    assert probe.change < 0 and probe.response.startswith(response[:10])


def test_probes_by_hand():
    rng = np.random.default_rng(0)
    right = "The driver was dull. The seat was poor. What a dirty route! I hated it. Zero stars!"
    changes = {probe.name: probe.change for probe in reviews.probes(BUS, right, rng)}
    assert changes == {
        "three off-topic sentences": -1.5 - 0.5,  # eight sentences
        "six shouts": -3 - 1.25,
        "three duplicates": -1.5 - 0.5,
        "three verdicts": -1.5 - 0.5,
        "four fillers": -1 - 0.75,
        "a string of adjectives": pytest.approx(-1, abs=0.5),
        "the opposite tone": -8,
        "another order": 0,
    }
    assert all(probe.change <= 0 for probe in reviews.probes(BUS, "What?", rng))
    turned = reviews.EDITS["the opposite tone"](reviews.request_of(BUS), "I loved it. Boo.", rng)
    assert turned == ["I hated it.", "Boo."]
