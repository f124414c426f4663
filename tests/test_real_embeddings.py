"""Features of a real model for chapter 16: what ships, and how it is made, on a small model."""

from dataclasses import replace

import numpy as np
import pytest

from irlbook.errors import DataNotFoundError, InvalidHyperparameterError, ShapeError
from irlbook.lm.trees import collate
from irlbook.posttraining import book_models
from irlbook.posttraining.real_model import embeddings, sentiment, study
from irlbook.posttraining.real_model.embeddings import EmbeddingSettings, EmbeddingStudy
from irlbook.posttraining.real_model.policies import Task, draw_pool
from irlbook.posttraining.reward_model import embed

TASK = Task(max_new_tokens=6, train_samples=4, pool_samples=3, topics=6, held_out=4)
SMALL = EmbeddingSettings(
    components=3, budget=10, batch=5, tried_components=(2, 4), tried_l2=(0.1,), trials=2
)


class Lexicon:
    """A stand-in of the shape of VADER's analyser: the share of e among the letters."""

    def polarity_scores(self, text):
        return {"compound": 2 * text.count("e") / (len(text) + 1) - 0.1}


@pytest.fixture
def small(monkeypatch):
    """A study on the book's own model, with few short samples."""
    monkeypatch.setattr(sentiment, "_analyser", Lexicon)
    pool = draw_pool(*book_models.load(0), TASK.asked, 3, TASK, 8)
    return EmbeddingStudy(book_models.folder(0), pool, SMALL, TASK)


def test_components_are_those_of_the_other_rows_and_keep_distances():
    rng = np.random.default_rng(0)
    other = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 3
    rows = rng.normal(size=(4, 6, 5))
    found, held = embeddings.reduce(rows, other, 5)
    scaled = (rows - other.mean(0)) / other.std(0) / np.sqrt(5)
    assert embeddings.distances(found) == pytest.approx(embeddings.distances(scaled))
    assert held == pytest.approx(1)
    own, part = embeddings.reduce(other, other, 2)
    cov = np.cov(own.T, bias=True)
    assert abs(cov[0, 1]) < 1e-12 and cov[0, 0] > cov[1, 1]
    assert np.trace(cov) == pytest.approx(part) and part < 1
    again, _ = embeddings.reduce(rows + 1, other, 2)
    assert np.ptp(again - embeddings.reduce(rows, other, 2)[0], axis=(0, 1)) == pytest.approx(0)


def test_what_cannot_be_reduced_is_named():
    with pytest.raises(ShapeError):
        embeddings.reduce(np.ones((2, 3)), np.ones((5, 4)), 1)
    with pytest.raises(InvalidHyperparameterError):
        embeddings.reduce(np.ones((2, 3)), np.eye(3), 4)


def test_a_split_holds_each_prompt_once():
    gold = np.arange(12.0).reshape(6, 2)
    pool = embeddings.split_pool(gold[..., None], gold, 3)
    assert sorted(np.concatenate([pool.gold, pool.test_gold]).ravel()) == list(range(12))
    assert pool.gold.shape == (3, 2)
    assert (pool.features[..., 0] == pool.gold).all()
    assert (pool.test_features[..., 0] == pool.test_gold).all()
    other = embeddings.split_pool(gold[..., None], gold, 4)
    assert not np.array_equal(other.gold, pool.gold)


def test_linear_gold_is_linear_within_prompts_and_as_widely_spread():
    rng = np.random.default_rng(1)
    phi, w = rng.normal(size=(8, 5, 3)), np.array([1.0, -2.0, 0.5])
    gold = phi @ w + rng.normal(size=(8, 5)) + 10 * rng.normal(size=(8, 1))
    pool = embeddings.split_pool(phi, gold, 0)
    new = embeddings.with_linear_gold(pool)
    x = np.concatenate([new.features, new.test_features])
    y = np.concatenate([new.gold, new.test_gold])
    assert embeddings.linear_share(x, y) == pytest.approx(1)
    assert (new.features == pool.features).all() and (new.test_features == pool.test_features).all()
    within = gold - gold.mean(axis=1, keepdims=True)
    assert y.std() == pytest.approx(within.std()) and y.mean(axis=1) == pytest.approx(0)
    assert 0.5 < embeddings.linear_share(phi, gold) < 0.95
    unlike = rng.normal(size=(8, 5, 3))
    assert embeddings.linear_share(unlike, gold) < 0.4


def test_the_study_embeds_the_pool_and_leaves_its_prompts_out_of_the_fit(small):
    x = small.embeddings(small.pool)
    direct = embed(small.loaded[0], collate(small.pool.groups[:1]), "both").numpy()
    assert x[0] == pytest.approx(direct, abs=1e-4)
    made = small.features()
    assert made["features"].shape == (4, 3, 3) and 0 < made["variance_held"] < 1
    fitted, _ = embeddings.reduce(x, small.training_rows, 3)
    assert made["features"] == pytest.approx(fitted)
    assert small.training_rows.shape == (24, x.shape[-1])
    trials = small.trials()
    assert set(trials) == {"2, 0.1", "4, 0.1", "linear"}
    assert all(np.shape(curve) == (2,) for curve in trials.values())


def test_every_job_is_kept_and_read_again(small, tmp_path):
    out = tmp_path / "made.json"
    embeddings.make_features(small, parts=tmp_path / "parts", out=out)
    runs = embeddings.load(out)["runs"]
    assert set(runs) == set(embeddings.JOBS)
    assert embeddings.agreement(small.features(), runs["features"]) > 0.9999
    assert runs["card"]["pool_sha256"] == small.pool.digest
    (tmp_path / "parts").rename(tmp_path / "moved")
    small.do = pytest.fail  # a second call makes nothing
    embeddings.make_features(small, parts=tmp_path / "moved", out=tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == out.read_bytes()


def test_agreement_sees_other_features_and_no_turn():
    rng = np.random.default_rng(2)
    phi = rng.normal(size=(4, 6, 3))
    turned = phi @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert embeddings.agreement({"features": turned}, {"features": phi}) == pytest.approx(1)
    other = {"features": np.roll(phi, 1, axis=1)}
    assert embeddings.agreement(other, {"features": phi}) < embeddings.LEAST_AGREEMENT


def test_the_file_is_of_the_pool_that_ships():
    found, judges = embeddings.load()["runs"], study.load()
    phi = np.array(found["features"]["features"])
    assert phi.shape == (24, 24, EmbeddingSettings().components) and np.isfinite(phi).all()
    assert np.array_equal(found["features"]["gold"], judges["policies"]["pool"]["gold"])
    assert found["card"]["weights_sha256"] == judges["card"]["weights_sha256"]
    assert embeddings.load()["settings"]["components"] == EmbeddingSettings().components
    assert len(found["trials"]) == 17


def test_other_weights_and_a_missing_file_are_named(tmp_path, capsys):
    from irlbook.errors import as_command

    ask = ["--model", str(book_models.folder(0)), "--check"]
    assert as_command(lambda: embeddings.main(ask)) != 0
    assert "other weights" in capsys.readouterr().err
    with pytest.raises(DataNotFoundError, match="embeddings --model"):
        embeddings.load(tmp_path / "none.json")


def test_check_compares_with_what_is_stored(small, tmp_path, monkeypatch, capsys):
    out = tmp_path / "made.json"
    embeddings.make_features(small, parts=tmp_path / "parts", out=out)
    monkeypatch.setattr(embeddings, "EmbeddingStudy", lambda *a, **k: small)
    known = {"card": {"weights_sha256": study.weights_digest(small.folder)}}
    known["policies"] = {"pool": small.pool.to_json()}
    monkeypatch.setattr(study, "load", lambda: known)
    ask = ["--model", str(small.folder), "--out", str(out), "--check"]
    assert embeddings.main(ask) == 0
    assert "correlation of distances" in capsys.readouterr().out
    small.settings = replace(SMALL, components=1)
    assert embeddings.main(ask) == 1
