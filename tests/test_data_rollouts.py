"""Rollout files: made-up ones here, the public CartPole demonstrations where present."""

import numpy as np
import pytest

from irlbook import data, errors
from irlbook.data import files
from irlbook.data.rollouts import read_rollouts


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "obs": rng.normal(size=(7 + 3, 2)),
        "acts": np.array([0, 1, 1, 0, 1, 0, 0]),
        "indices": np.array([3, 4]),
        "terminal": np.array([True, False, True]),
        "rews": np.arange(7.0),
    }


def save(tmp_path, arrays):
    np.savez(tmp_path / "r.npz", **arrays)
    return tmp_path / "r.npz"


def test_trajectories_of_mixed_lengths_come_apart_where_they_should(tmp_path, arrays):
    rollouts = read_rollouts(save(tmp_path, arrays))
    assert len(rollouts) == 3 and rollouts.lengths.tolist() == [3, 1, 3]
    assert rollouts.returns.tolist() == [3.0, 3.0, 15.0]
    pairs = list(rollouts)
    assert [len(o) - len(a) for o, a in pairs] == [1, 1, 1]
    np.testing.assert_array_equal(pairs[1][0], arrays["obs"][4:6])
    seen, actions = rollouts.labelled()
    np.testing.assert_array_equal(seen, np.concatenate([o[:-1] for o, _ in pairs]))
    np.testing.assert_array_equal(actions, np.concatenate([a for _, a in pairs]))


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("indices", np.array([3, 3]), "trajectory 1 takes no action"),
        ("indices", np.array([4, 3]), "trajectory 1 takes no action"),
        ("obs", np.zeros((9, 2)), "one observation more"),
        ("obs", np.full((10, 2), np.nan), "row 0 of obs"),
        ("terminal", np.array([True]), "terminal flags"),
        ("rews", np.zeros(6), "rews has shape"),
        ("obs", np.zeros(10), "obs must be"),
        ("acts", np.array([{}] * 7, dtype=object), "pickled"),
    ],
)
def test_bad_files_are_named(tmp_path, arrays, key, value, message):
    with pytest.raises(errors.InvalidDataError, match=message):
        read_rollouts(save(tmp_path, {**arrays, key: value}))


def test_missing_foreign_and_large_files(tmp_path, arrays):
    path = save(tmp_path, {k: v for k, v in arrays.items() if k != "acts"})
    with pytest.raises(errors.InvalidDataError, match="no array 'acts'"):
        read_rollouts(path)
    with pytest.raises(errors.DataTooLargeError):
        read_rollouts(path, most_bytes=10)
    path.write_bytes(b"not a zip")
    with pytest.raises(errors.InvalidDataError, match="readable"):
        read_rollouts(path)
    with pytest.raises(errors.DataNotFoundError):
        read_rollouts(tmp_path / "none.npz")


def test_pickled_infos_are_left_closed(tmp_path, arrays):
    path = save(tmp_path, {**arrays, "infos": np.array([{}] * 7, dtype=object)})
    assert len(read_rollouts(path)) == 3


def test_public_cartpole_demonstrations():
    try:
        path = data.find_data("imitation_demos")
    except errors.DataNotFoundError:
        pytest.skip(f"imitation_demos is not here: set {files.FOLDER} to a folder that holds it")
    rollouts = read_rollouts(path / "cartpole_noobj.npz")
    assert len(rollouts) == 57 and len(rollouts.actions) == 26_964
    assert rollouts.returns.mean() == pytest.approx(473.05, abs=0.06)
    pendulum = read_rollouts(path / "pendulum_noobj.npz")
    assert len(pendulum) == 56 and pendulum.returns.mean() == pytest.approx(-189.4, abs=0.1)
