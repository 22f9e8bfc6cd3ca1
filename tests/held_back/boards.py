"""``python -m tests.held_back.boards``: coverage and false positives of the leaderboard on simulated boards.

Boards have draws, units, shared fits and seeds nested as ours have them; methods are tied, or spaced so that the best
makes .6 of the last one's error. "Wrong": a pair is told apart that is tied, or the wrong way round, anywhere on the
board. "Best kept": the truly best method is in the set of the best.
"""

import argparse

import numpy as np

from leaderboard.statistics import adjusted, average, block
from tests.held_back.scoring import table

KINDS = (("draws",), ("folds",), ("fit",), ("draws", "folds"), ("draws", "fit"))


def board(rng, kind, n_methods, effects):
    """Logarithms of errors with draws, units, shared fits and seeds nested as tasks have them."""
    if kind == "draws":
        values = 0.14 * rng.normal(size=(n_methods, 12, 1, 1)) + 0.36 * rng.normal(size=(n_methods, 12, 4, 1))
        values = values + 0.1 * rng.standard_t(4, size=(n_methods, 12, 4, 1))
        return effects[:, None, None] + values.reshape(n_methods, 48, 1), np.repeat(range(12), 4).tolist(), False
    if kind == "folds":
        shared = 0.2 / np.sqrt(9) * rng.normal(size=(n_methods, 1, 1))
        own = 0.2 * np.sqrt(1 - 1 / 9) * rng.normal(size=(n_methods, 9, 1))
        return effects[:, None, None] + shared + own, [None] * 9, False
    parts = 0.11 * rng.normal(size=(n_methods, 30, 1)) + 0.03 * rng.normal(size=(n_methods, 1, 3))
    return effects[:, None, None] + parts + 0.05 * rng.normal(size=(n_methods, 30, 3)), [None] * 30, True


def counts(kinds, n_methods, spaced, n_boards, seed):
    """Return shares over boards: covered, wrong, told apart, best kept."""
    rng = np.random.default_rng([seed, n_methods, spaced])
    effects = np.linspace(0, 0.5, n_methods) if spaced else np.zeros(n_methods)
    i, j = np.triu_indices(n_methods, 1)
    truth, found = effects[i] - effects[j], []
    for _ in range(n_boards):
        blocks = []
        for kind in kinds:
            values, draws, one_fit = board(rng, kind, n_methods, effects)
            blocks.append(block(values[i] - values[j], draws, one_fit))
        means = average([one.means() for one in blocks])
        p, _ = adjusted(blocks, means)
        low, high = means.interval()
        told = p < 0.05
        wrong = told & ((truth == 0) | (np.sign(means.value) != np.sign(truth)))
        covered = ((low <= truth) & (truth <= high)).mean()
        found.append((covered, wrong.any(), told.mean(), not (told & (i == 0) & (means.value > 0)).any()))
    return np.mean(found, axis=0)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.held_back.boards", description=__doc__)
    parser.add_argument("--boards", type=int, default=500)
    chosen = parser.parse_args()
    rows = []
    for kinds in KINDS:
        for n_methods in (6, 14):
            for spaced in (False, True):
                shares = counts(kinds, n_methods, spaced, chosen.boards, 1)
                kept = f"{shares[3]:.3f}" if spaced else "–"
                truth = "spaced" if spaced else "tied"
                told = f"{shares[2]:.2f}" if spaced else "–"
                rows.append([" + ".join(kinds), n_methods, truth, f"{shares[0]:.3f}", f"{shares[1]:.3f}", told, kept])
    table(["board", "methods", "truth", "covered", "wrong", "told apart", "best kept"], rows)


if __name__ == "__main__":
    main()
