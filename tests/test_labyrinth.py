"""The maze, its reader on hostile files, and the real mice where their data are present."""

import numpy as np
import pytest
from scipy import sparse

from irlbook import data, errors, planning
from irlbook.data import files
from irlbook.data.labyrinth import DRINK_COLUMNS, STEP_COLUMNS, read_labyrinth
from irlbook.envs.labyrinth import BACK, LEFT, RIGHT, corridors, labyrinth, positions, thirsty
from irlbook.irl.bayesian import Posterior, choice_counts
from irlbook.irl.deep_maxent import DeepMaxEntConfig, fit_deep_max_ent
from irlbook.mdp import TabularMDP, Trajectories, sample_trajectories


def test_every_corridor_leads_where_the_tree_says():
    maze = labyrinth()
    moves = maze.mdp.dense()
    assert maze.mdp.n_states == 128 and maze.exit == 127 and maze.port == 116
    for node in range(127):
        children = [2 * node + 1, 2 * node + 2] if node < 63 else [node, node]
        targets = [(node - 1) // 2 if node else 127, *children]
        assert moves[node].argmax(axis=1).tolist() == targets
        assert maze.reference[node].tolist() == [1, *([1, 1] if node < 63 else [0, 0])]
    assert maze.mdp.terminal.nonzero()[0].tolist() == [127]
    # The uniform walk over corridors is a legal policy that gets out in the end.
    walk = maze.reference / maze.reference.sum(axis=1, keepdims=True)
    visits = planning.occupancy_measure(maze.mdp.with_discount(1.0), walk)
    # Of a random walk on a graph, visits go by degree; it ends at its first step to the exit.
    np.testing.assert_allclose(visits.sum(axis=1)[:127], maze.reference.sum(axis=1)[:127])


def test_paths_and_trajectories_are_the_same_thing():
    maze = labyrinth(3)
    walk = maze.reference / maze.reference.sum(axis=1, keepdims=True)
    demos = sample_trajectories(maze.mdp, walk, 20, 40, np.random.default_rng(0))
    again = maze.trajectories([states for states, _ in demos])
    np.testing.assert_array_equal(again.states, demos.states)
    np.testing.assert_array_equal(again.actions, demos.actions)


def test_thirst_ends_at_the_port_and_comes_back():
    plain = labyrinth(3)
    maze = thirsty(plain, refill=0.25)
    n, port = plain.mdp.n_states, plain.port
    moves = maze.mdp.dense()
    before = (port - 1) // 2
    action = LEFT if port % 2 else RIGHT
    np.testing.assert_allclose(moves[before, action].nonzero()[0], [n + port])
    assert moves[n + before, action, n + port] == pytest.approx(0.75)
    assert moves[n + before, action, port] == pytest.approx(0.25)
    assert moves[before, BACK].argmax() == (before - 1) // 2
    assert (maze.node == np.tile(np.arange(n), 2)).all() and maze.is_thirsty.sum() == n
    # Folded onto nodes, it moves as the plain maze does.
    folded = moves.reshape(2 * n, 3, 2, n).sum(axis=2)
    np.testing.assert_allclose(folded[:n], plain.mdp.dense())
    np.testing.assert_allclose(folded[n:], plain.mdp.dense())
    arrivals = maze.arrivals().toarray().reshape(2 * n, 3, n)
    np.testing.assert_allclose(arrivals, folded)
    drink = maze.arrives_thirsty().toarray().reshape(2 * n, 3)
    assert drink[before, action] == 1 and (drink * maze.reference).sum() == 1


def test_the_picture_has_no_two_nodes_in_one_place():
    place = positions(6)
    assert place.shape == (127, 2)
    assert len(np.unique(place.round(6), axis=0)) == 127
    parent = (np.arange(1, 127) - 1) // 2
    assert ((place[1:] != place[parent]).sum(axis=1) == 1).all()  # corridors are straight


def test_bad_paths_are_named():
    maze = labyrinth(3)
    for paths, words in [
        ([[0, 1, 3], [0, 5]], "path 1 goes from node 0 to node 5 at step 0"),
        ([[0]], "path 0 makes no move"),
        ([[0, 99]], "outside 0..15"),
        ([[3, 15]], "from node 3 to node 15"),
        ([[0, 15, 0]], "from node 15 to node 0 at step 1"),
        ([[0.0, 1.0]], "outside"),
    ]:
        with pytest.raises(errors.InvalidTrajectoryError, match=words):
            maze.trajectories(paths)
    doubled = thirsty(maze, refill=0.1)
    with pytest.raises(errors.InvalidTrajectoryError, match="this maze has thirst"):
        doubled.trajectories([[0, 1]])
    with pytest.raises(errors.InvalidTrajectoryError, match="one truth value"):
        doubled.trajectories([[0, 1]], [[True]])
    for make in (
        lambda: labyrinth(0),
        lambda: labyrinth(3, port=2),
        lambda: thirsty(maze, refill=1.5),
        lambda: thirsty(doubled, refill=0.1),
    ):
        with pytest.raises(errors.InvalidEnvironmentError):
            make()
    assert corridors(np.array([0, 2, 0, 15]), 15).tolist() == [RIGHT, BACK, BACK]


# --- the reader -----------------------------------------------------------------------------------

GOOD = "M1,0,0,0,10\nM1,0,1,2,20\nM1,0,2,0,3000\nM1,0,3,127,3010\n"


def folder(tmp_path, steps=GOOD, drinks=None):
    (tmp_path / "node_steps.csv").write_text(",".join(STEP_COLUMNS) + "\n" + steps)
    if drinks is not None:
        (tmp_path / "rewards.csv").write_text(",".join(DRINK_COLUMNS) + "\n" + drinks)
    return tmp_path


def test_reading_bouts_and_thirst(tmp_path):
    (bout,) = read_labyrinth(folder(tmp_path, drinks="M1,0,60,80,2\n"))
    assert bout.nodes.tolist() == [0, 2, 0, 127] and bout.frames.tolist() == [10, 20, 3000, 3010]
    # The drop is logged a little after the arrival: thirst ends with the arrival at frame 20 ...
    assert bout.thirst().tolist() == [False, False, True, True]
    assert bout.drinks.tolist() == [60]
    (tmp_path / "rewards.csv").unlink()
    (dry,) = read_labyrinth(tmp_path, "M1")
    assert dry.drinks.size == 0 and dry.thirst().all()


@pytest.mark.parametrize(
    "steps, drinks, words",
    [
        ("M1,0,0,0\n", None, "node_steps.csv:2: 4 fields"),
        ("M1,0,0,zero,1\n", None, "not all whole numbers"),
        ("M1,0,0,128,1\n", None, "node 128 is outside"),
        ("M1,0,1,0,1\n", None, "step 1 of bout 0 follows on 0 steps"),
        ("M1,0,0,0,9\nM1,0,1,1,3\n", None, "node_steps.csv:3: frame 3 comes before frame 9"),
        (GOOD, "M1,7,1,2,116\n", "no bout 7"),
        (GOOD, "M1,0,5,2,116\n", "ends .2. before"),
    ],
)
def test_hostile_rows_are_named_by_file_and_line(tmp_path, steps, drinks, words):
    with pytest.raises(errors.MalformedRowsError, match=words):
        read_labyrinth(folder(tmp_path, steps, drinks))


def test_hostile_files_are_named(tmp_path):
    with pytest.raises(errors.DataNotFoundError):
        read_labyrinth(tmp_path / "nowhere")
    with pytest.raises(errors.DataNotFoundError, match="node_steps.csv is not in"):
        read_labyrinth(tmp_path)
    with pytest.raises(errors.EmptyDataError):
        read_labyrinth(folder(tmp_path, ""))
    with pytest.raises(errors.DataNotFoundError, match="there are M1"):
        read_labyrinth(folder(tmp_path), "M2")
    (tmp_path / "node_steps.csv").write_text("a,b\n")
    with pytest.raises(errors.MalformedRowsError, match="the columns are"):
        read_labyrinth(tmp_path)


# --- the real mice --------------------------------------------------------------------------------


@pytest.fixture
def mice():
    try:
        return data.find_data("mouse_labyrinth")
    except errors.DataNotFoundError:
        pytest.skip(f"mouse_labyrinth is not here: set {files.FOLDER} to a folder that holds it")


def test_real_mice_walk_the_tree_and_drink_at_the_port(mice):
    bouts = read_labyrinth(mice)
    maze = labyrinth()
    sizes = {}
    for bout in bouts:
        sizes.setdefault(bout.segment, []).append(len(bout.nodes))
    assert {k: (len(v), sum(v)) for k, v in sizes.items()} == {
        "A1b": (21, 1586),
        "D6": (59, 61),
        "D9a": (47, 3516),
        "D9b": (48, 4492),
    }
    moving = [bout.nodes for bout in bouts if len(bout.nodes) > 1]
    assert len(maze.trajectories(moving).actions) == 9480  # all of them legal
    assert sum(len(bout.drinks) for bout in bouts) == 34
    for segment in ("A1b", "D9a", "D9b"):
        nodes = np.concatenate([b.nodes for b in bouts if b.segment == segment])
        ends = nodes[(nodes >= 63) & (nodes < 127)]
        assert np.bincount(ends).argmax() == 116


def static_fit(maze, demos, sigma=0.4):
    posterior = Posterior(
        maze.mdp,
        maze.arrivals(),
        choice_counts(demos, maze.mdp),
        prior_deviation=sigma,
        reference=maze.reference,
    )
    fit = posterior.laplace(tolerance=1e-3)
    nats = -posterior.log_likelihood(fit.mode)[0] / len(demos.actions)
    return fit, nats, 1 + int((fit.mode[:127] > fit.mode[116]).sum())


def test_real_mice_static_reward_meets_the_published_figures(mice):
    """0.899 for a random walk, 0.817 for a static reward, and the port only 12th (D9b: 7th).

    The figures name no penalty; a prior deviation of 0.4 meets them.
    """
    maze = labyrinth()
    demos = maze.trajectories([b.nodes for b in read_labyrinth(mice, "D9a")])
    walk = np.log(maze.reference.sum(axis=1))[demos.acting_states].mean()
    assert walk == pytest.approx(0.899, abs=5e-4)
    fit, nats, rank = static_fit(maze, demos)
    assert nats == pytest.approx(0.817, abs=4e-3) and rank == 12
    assert np.ptp(fit.mode) > 1.0  # no all-zero reward (imitation, issue 808)
    ranks = [static_fit(maze, demos, sigma)[2] for sigma in (0.3, 0.5, 0.65, 0.8)]
    assert ranks[0] == 6 and ranks[-1] == 19  # the rank depends on the prior
    assert ranks == sorted(ranks)
    demos = maze.trajectories([b.nodes for b in read_labyrinth(mice, "D9b")])
    _, nats, rank = static_fit(maze, demos)
    assert 5 <= rank <= 9 and nats < 0.82


def choices_with_needs(maze, bouts):
    """Choice counts (2 S, A) of bouts on the nodes of the maze, each thirsty or sated."""
    half = maze.mdp.n_states // 2
    pairs = [(b.nodes + half * ~b.thirst(), corridors(b.nodes, maze.exit)) for b in bouts]
    demos = Trajectories.from_list(pairs)
    return demos.counts(maze.mdp.n_states, 3) * len(demos)


def posterior_with_needs(maze, counts):
    features = sparse.hstack([maze.arrivals(), maze.arrives_thirsty()], format="csr")
    return Posterior(maze.mdp, features, counts, prior_deviation=0.4, reference=maze.reference)


@pytest.mark.parametrize("refill", [0.005, 0.01])
def test_real_mice_a_reward_for_the_thirsty_ranks_the_port_first(mice, refill):
    maze = thirsty(labyrinth(), refill=refill)
    counts = choices_with_needs(maze, read_labyrinth(mice, "D9a"))
    fit = posterior_with_needs(maze, counts).laplace(tolerance=1e-3)
    weight = fit.mode[:127].copy()
    sated_rank = 1 + int((weight > weight[116]).sum())
    weight[116] += fit.mode[128]
    assert (weight <= weight[116]).all() and sated_rank >= 10
    assert fit.interval(0.9)[128, 0] > 0


def test_real_mice_needs_save_about_a_thousandth_of_a_nat_on_bouts_left_out(mice):
    bouts = read_labyrinth(mice, "D9a")
    plain = labyrinth()
    maze = thirsty(plain, refill=0.01)
    lost = np.zeros(2)  # nats of the static reward and of the one with needs, five folds
    for fold in range(5):
        shown, kept = (
            choices_with_needs(maze, [b for i, b in enumerate(bouts) if (i % 5 == fold) == left])
            for left in (False, True)
        )

        def static(counts):
            folded = counts[:128] + counts[128:]
            return Posterior(
                plain.mdp,
                plain.arrivals(),
                folded,
                prior_deviation=0.4,
                reference=plain.reference,
            )

        def needs(counts):
            return posterior_with_needs(maze, counts)

        for k, model in enumerate((static, needs)):
            mode = model(shown).laplace(tolerance=1e-3).mode
            lost[k] -= model(kept).log_likelihood(mode)[0]
    steps = sum(len(b.nodes) - 1 for b in bouts)
    assert lost[0] / steps == pytest.approx(0.87, abs=5e-3)
    assert 0.0005 < (lost[0] - lost[1]) / steps < 0.0015


def test_real_mice_deep_fit_neither_collapses_nor_runs_away(mice):
    """The regression test for imitation, issue 808: all-zero rewards on mouse data."""
    maze = labyrinth()
    demos = maze.trajectories([b.nodes for b in read_labyrinth(mice, "D9a")])
    occupancy = demos.counts(128, 3, maze.mdp.discount)
    features = maze.arrivals().toarray().reshape(128, 3, 128)
    config = DeepMaxEntConfig(hidden=(16,))
    fit = fit_deep_max_ent(maze.mdp, features, occupancy, config, reference=maze.reference)
    assert fit.report.converged and np.ptp(fit.reward) > 1.0 and fit.occupancy_gap < 0.1
    assert fit.trace[-1, 1] < 0.05 * fit.trace[0, 1]
    # But the discounted dual sees the first steps of a bout only: worse than the random walk.
    nats = -np.log(fit.policy[demos.acting_states, demos.actions]).mean()
    assert 0.91 < nats < 0.95
    # Bouts of 6 to 374 steps in a maze without an end: refused, with the reason.
    moves = maze.mdp.dense()
    moves[127, :, 127] = 1.0
    endless = TabularMDP.create(moves, np.zeros(128), start=0, discount=maze.mdp.discount)
    with pytest.raises(errors.UnreachableFeaturesError, match="terminal states in which they end"):
        fit_deep_max_ent(endless, features, occupancy, config, reference=maze.reference)


@pytest.mark.parametrize("path", [[0, 1.5], ["0", "1"], [[0], [1, 2]], [0, None], 3])
def test_a_path_of_no_nodes_is_named(path):
    with pytest.raises(errors.InvalidTrajectoryError, match="path 1 .* a flat list of whole"):
        labyrinth(2).trajectories([[0, 1], path])
