"""What papers claim of their methods, and what the rows of a run say of it.

A claim is data: its source, a sentence, and the comparisons that decide it. The verdicts are the suite's own: ratios of
errors by :mod:`leaderboard.statistics`, with the replicates of each task, and one family of tests over the comparisons
of all claims. Holm's method corrects them: flipped signs need six replicates, and one claim with fewer would leave all
others undecided. Nothing else is written down here, so that a claim has no verdict before it has rows.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from leaderboard import statistics
from leaderboard.comparison import BASELINE, FLOOR
from leaderboard.formatting import with_interval
from leaderboard.statistics import BETTER, EQUIVALENT, MARGIN, UNDECIDED, WORSE, Array
from leaderboard.table import Leaderboard, TaskTable

HOLDS, FAILS, NO_ROWS = "holds", "does not hold", "no rows"
#: What a claim says of the error of a method divided by that of another one. The last two allow for ±5 %.
SMALLER, NOT_LARGER, NOT_SMALLER = "smaller", "not larger", "not smaller"
#: Comparisons of a claim that are shown; those that decide it come first.
MAX_SHOWN = 3
COLUMNS = ("claim", "verdict", "error of the first ÷ of the second [95 %]", "on", "decided by")
HOW_TO_READ_CLAIMS = (
    "A claim *holds* where each of its comparisons holds, and *does not hold* where one is shown to be wrong. *Better* "
    "asks for a difference that is shown; *as if* and *not better* allow for 5 % of the error, and hold where the "
    "interval says that it is not more. The comparisons of all claims are corrected for each other (Holm), and not for "
    "the other pairs of the tables, so that a verdict here and there may differ. Judged are the methods of this suite, "
    "in its tasks and at the settings of this run, and not the experiments of the papers."
)


@dataclass(frozen=True)
class Contrast:
    """One comparison, or the same one for several methods.

    Parameters
    ----------
    methods : labels of rows. Of several, those that the run has are compared; one must be there.
    relation : what is claimed of the error of each, divided by the other's: :data:`SMALLER`, :data:`NOT_LARGER` or
        :data:`NOT_SMALLER`.
    other : the label of a method or reference.
    metric : whose error; empty for the relative error of the task.
    other_metric : whose error of the other, where that is another metric.
    """

    methods: tuple[str, ...]
    relation: str
    other: str
    metric: str = ""
    other_metric: str = ""


@dataclass(frozen=True)
class Claim:
    """What a paper claims.

    Parameters
    ----------
    source : the paper.
    sentence : the claim.
    tasks : each task/dataset that decides it; the first is the one to run where there are no rows.
    contrasts : the comparisons that must all hold.
    decides : what decides it, in words, and what that leaves open.
    """

    source: str
    sentence: str
    tasks: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    decides: str

    @property
    def command(self) -> str:
        """What gives the rows that decide the claim."""
        labels = [label for one in self.contrasts for label in (*one.methods, one.other)]
        methods = ",".join(label for label in dict.fromkeys(labels) if label not in (BASELINE, FLOOR))
        return shlex.join(["python", "-m", "bench", "run", "--methods", methods, "--tasks", self.tasks[0]])


@dataclass(frozen=True)
class Evidence:
    """What the rows say of one comparison.

    Parameters
    ----------
    first, second : what is compared.
    ratio, low, high : the error of the first divided by that of the second, with its 95 % interval; NaN where one
        replicate has no interval.
    p : adjusted for the comparisons of all claims.
    verdict : on the first, as in a table; empty where there is no test.
    answer : whether what is claimed holds.
    on : each task, with its replicates.
    """

    first: str
    second: str
    ratio: float
    low: float
    high: float
    p: float
    verdict: str
    answer: str
    on: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """A claim, its verdict at one preset and what that rests on."""

    claim: Claim
    preset: str
    verdict: str
    evidence: tuple[Evidence, ...]

    @property
    def sentence(self) -> str:
        """The claim; the preset is named where it is not the default."""
        return self.claim.sentence + ("" if self.preset in ("", "default") else f" ({self.preset})")

    @property
    def effects(self) -> list[str]:
        """The ratios with their intervals, as text."""
        shown = list(self.evidence)
        if len(shown) > MAX_SHOWN:
            order = (FAILS, UNDECIDED, HOLDS)
            shown = sorted(shown, key=lambda one: (order.index(one.answer), one.ratio))[:MAX_SHOWN]
        ratios = with_interval(pd.DataFrame([asdict(one) for one in shown]), "ratio", "low", "high") if shown else []
        texts = [f"{one.first} ÷ {one.second}: {ratio}" for one, ratio in zip(shown, ratios, strict=True)]
        more = len(self.evidence) - len(shown)
        return [*texts, f"and {more} more"] if more else texts

    @property
    def on(self) -> list[str]:
        """Each task that has rows, with its replicates."""
        return list(dict.fromkeys(text for one in self.evidence for text in one.on))


_LOPEZ = "Lopez et al. 2023, CLeaR, PMLR 213: Learning causal representations of single cells via sparse shifts"
_WEINBERGER = "Weinberger, Lopez, Hütter, Regev 2022, bioRxiv 2022.12.13.520349 (multiGroupVI)"
_PRIVATE = ("shared-private/splatter-groups", "shared-private/haber-regions", "shared-private/marques",
            "shared-private/pbmc-3tech")  # fmt: skip
#: The VAE that differs from iVAE and sVAE+ by its prior alone.
_VAE = "vae@likelihood=negative-binomial"
#: Networks that predict two perturbations at once.
_DEEP = (
    "vae", "beta-vae", "annealed-vae", "beta-tcvae", "factor-vae", "dip-vae-i", "dip-vae-ii", "gamma-vae", "basis-vae",
    "dhsic-vae", "dhsic-vae-nuisance", "ivae", "svae", "svae-plus",
)  # fmt: skip

CLAIMS = (
    Claim(
        "Kim et al. 2024, arXiv 2403.01078",
        "The Γ-VAE embeds cancers that it never saw as if it had been trained on them.",
        ("reembedding/pancancer-sim", "reembedding/tcga-paired", "reembedding/tcga-mirna", "reembedding/tcga-gtex"),
        (Contrast(("gamma-vae",), NOT_LARGER, "gamma-vae", "neighbour_agreement", "agreement_two_seeds"),),
        "neighbours of the unseen samples that differ between a fit without their cancer and one with it, against "
        "those that differ between two fits with it. Whether the neighbours are right, the task asks and not the claim",
    ),
    Claim(
        "Lotfollahi et al. 2020, Bioinformatics 36:i610, doi 10.1093/bioinformatics/btaa800",
        "On Kang's cells trVAE predicts unseen cell types better than the CVAE and than latent arithmetic with a VAE.",
        ("unseen-cell-type/kang",),
        (Contrast(("trvae",), SMALLER, "cvae"), Contrast(("trvae",), SMALLER, "vae")),
        "the error of the predicted shift; the paper has r² of the means and variances of genes",
    ),
    Claim(
        "Lotfollahi, Dony, Agarwala, Theis 2021, bioRxiv 2021.09.01.458535",
        "The β-VAE predicts unseen cell types better than the dHSIC-VAE.",
        ("unseen-cell-type/ifn-sim", "unseen-cell-type/kang", "unseen-cell-type/haber-infection"),
        (Contrast(("beta-vae",), SMALLER, "dhsic-vae"),),
        "the error of the predicted shift, by latent arithmetic; the paper moves one latent",
    ),
    Claim(
        "Gabbay & Hoshen 2020, ICLR, arXiv 1906.11796: Demystifying Inter-Class Disentanglement",
        "Cells that LORD moves to another class pass for real ones more often than those that StarGAN moves.",
        ("unseen-cell-type/digits", "unseen-cell-type/ifn-sim", "unseen-cell-type/kang"),
        (Contrast(("lord",), SMALLER, "stargan", "transfer_error"),),
        "moved cells that a classifier of real cells does not take for their content in the new class. StarGAN has no "
        "code, so that the paper's comparison of what codes leak is left out",
    ),
    Claim(
        _WEINBERGER,
        "multiGroupVI separates what groups share from what each has for itself.",
        _PRIVATE,
        (Contrast(("multigroup-vi",), SMALLER, FLOOR, "block_diagonality"),),
        "what shared and private block know of cell types, groups and programs, against one code that is both blocks",
    ),
    Claim(
        _WEINBERGER,
        "multiGroupVI separates shared from private variation better than linear models.",
        _PRIVATE,
        (Contrast(("multigroup-vi",), SMALLER, BASELINE, "block_diagonality"),),
        "the same, against PCA without group means as the shared and contrastive PCA as the private block",
    ),
    Claim(
        _LOPEZ,
        "sVAE+ recovers the true latents better than the iVAE, and the iVAE better than the VAE.",
        ("latent-recovery/sparse-shift", "latent-recovery/sparse-shift-published"),
        (Contrast(("svae-plus",), SMALLER, "ivae", "mcc"), Contrast(("ivae",), SMALLER, _VAE, "mcc")),
        "the correlation of matched latents (MCC), at one likelihood; shifts of means cannot fix the axes of an iVAE",
    ),
    Claim(
        _LOPEZ,
        "sVAE+ adapts to a new perturbation better than the iVAE, and the iVAE better than the VAE.",
        ("few-shot-perturbation/sparse-shift",),
        (Contrast(("svae-plus",), SMALLER, "ivae"), Contrast(("ivae",), SMALLER, _VAE)),
        "the error of the mean that is predicted after ten cells; the paper has the likelihood of cells",
    ),
    Claim(
        "Ahlmann-Eltze, Huber, Anders 2025, Nature Methods: linear baselines for perturbation prediction",
        "Deep models do not predict unseen double perturbations better than linear ones.",
        ("unseen-perturbation/doubles-sim", "unseen-perturbation/norman-mini", "unseen-perturbation/norman"),
        (Contrast(_DEEP, NOT_SMALLER, BASELINE),),
        "the error of the predicted shift of each network, against the task's best simple method: a sum of the shifts "
        "of single perturbations, scaled or not, or latent arithmetic with PCA",
    ),
)  # fmt: skip


def outcomes(leaderboard: Leaderboard, claims: Sequence[Claim] = CLAIMS) -> list[Outcome]:
    """What the rows say of each claim.

    Returns
    -------
    outcomes : in the order of the claims; of one that has rows at several presets, each. A claim whose rows are absent
        has no evidence, or not all.
    """
    presets = list(dict.fromkeys(table.preset for table in leaderboard.tasks)) or [""]
    of_preset = [_outcomes(leaderboard, preset, claims) for preset in presets]
    found = []
    for of_claim in zip(*of_preset, strict=True):
        found += [one for one in of_claim if one.evidence] or [of_claim[0]]
    return found


def as_records(found: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Outcomes as dictionaries of what JSON knows; what is not defined is None."""
    return [
        {
            "source": one.claim.source,
            "claim": one.claim.sentence,
            "preset": one.preset,
            "verdict": one.verdict,
            "decides": one.claim.decides,
            "comparisons": [
                {key: None if isinstance(x, float) and not np.isfinite(x) else x for key, x in asdict(each).items()}
                for each in one.evidence
            ],
            "command": one.claim.command,
        }
        for one in found
    ]


@dataclass(frozen=True)
class _Asked:
    """One comparison of a claim and a method: the logarithms of its ratio of errors, by the number of the table."""

    claim: Claim
    contrast: Contrast
    method: str
    logs: Mapping[int, Array]


def _outcomes(leaderboard: Leaderboard, preset: str, claims: Sequence[Claim]) -> list[Outcome]:
    tables = [table for table in leaderboard.tasks if table.preset == preset]
    asked = []
    for claim in claims:
        for contrast in claim.contrasts:
            for method in contrast.methods:
                here = [(n, table) for n, table in enumerate(tables) if table.task in claim.tasks]
                there = {n: _logs(leaderboard, table, contrast, method) for n, table in here}
                logs = {n: values for n, values in there.items() if np.isfinite(values).any()}
                if logs:
                    asked.append(_Asked(claim, contrast, method, logs))
    evidence = list(zip(asked, _evidence(tables, asked), strict=True)) if asked else []
    return [_outcome(claim, preset, evidence) for claim in claims]


def _outcome(claim: Claim, preset: str, evidence: Sequence[tuple[_Asked, Evidence]]) -> Outcome:
    own = [(asked.contrast, found) for asked, found in evidence if asked.claim is claim]
    answers = {found.answer for _, found in own}
    if FAILS in answers:
        verdict = FAILS
    elif any(contrast not in [asked for asked, _ in own] for contrast in claim.contrasts):
        verdict = NO_ROWS
    else:
        verdict = UNDECIDED if UNDECIDED in answers else HOLDS
    return Outcome(claim, preset, verdict, tuple(found for _, found in own))


def _logs(leaderboard: Leaderboard, table: TaskTable, contrast: Contrast, method: str) -> Array:
    """Logarithms of the ratio of errors, (n_units, n_seeds); NaN where one of them has none."""
    samples, names = table.comparison.samples, list(table.comparison.frame.index)
    nothing = np.full((len(table.units), len(table.seeds)), np.nan)
    if samples is None or not {method, contrast.other} <= set(names):
        return nothing
    if not contrast.metric:
        return samples.values[names.index(method)] - samples.values[names.index(contrast.other)]
    rows = leaderboard.rows
    rows = rows[(rows["task"] == table.task) & (rows["preset"] == table.preset) & (rows["status"] == "ok")]

    def errors(label: str, metric: str) -> Array:
        own = rows[(rows["method"] == label) & (rows["metric"] == metric)]
        own = own.assign(error=np.abs(own["value"].astype(float) - own["best"].astype(float)))
        wide = own.pivot_table(index="unit", columns="seed", values="error", aggfunc="last")
        return np.asarray(wide.reindex(index=list(table.units), columns=list(table.seeds)), dtype=float)

    both = [errors(method, contrast.metric), errors(contrast.other, contrast.other_metric or contrast.metric)]
    scale = errors(BASELINE, contrast.metric), errors(FLOOR, contrast.metric)
    first, second = statistics.log_relative_errors(np.stack(both), *scale)
    return first - second


def _evidence(tables: Sequence[TaskTable], asked: Sequence[_Asked]) -> list[Evidence]:
    """Test all comparisons together."""
    blocks, replicates = [], []
    for n, table in enumerate(tables):
        if table.comparison.samples is None or not any(n in one.logs for one in asked):
            continue
        nothing = np.full((len(table.units), len(table.seeds)), np.nan)
        blocks.append(table.comparison.samples.block(np.stack([one.logs.get(n, nothing) for one in asked])))
        noun = "draw" if len(table.draws) > 1 else "unit"
        counts = blocks[-1].means().n
        replicates.append([f"{table.task}: {k} {noun}{'' if k == 1 else 's'}" if k else "" for k in counts])
    means = statistics.average([one.means() for one in blocks])
    low, high = means.interval()
    p = statistics.holm(means.p())
    found = []
    for k, one in enumerate(asked):
        word = statistics.verdict(means.value[k], low[k], high[k], p[k])
        contrast = one.contrast
        names = [one.method, contrast.other]
        if contrast.other_metric:  # of one method, so that its name tells nothing
            names = [f"{contrast.metric} of {names[0]}", f"{contrast.other_metric} of {names[1]}"]
        found.append(
            Evidence(
                first=names[0],
                second=names[1],
                ratio=float(np.exp(means.value[k])),
                low=float(np.exp(low[k])),
                high=float(np.exp(high[k])),
                p=float(p[k]),
                verdict=word,
                answer=_answer(contrast.relation, word, low[k], high[k]),
                on=tuple(texts[k] for texts in replicates if texts[k]),
            )
        )
    return found


def _answer(relation: str, verdict: str, low: float, high: float) -> str:
    """Whether what is claimed of a ratio of errors holds, from its verdict and the interval of its logarithm."""
    holds, fails = {
        SMALLER: (verdict == BETTER, verdict in (EQUIVALENT, WORSE)),
        NOT_LARGER: (verdict == BETTER or high < MARGIN, verdict == WORSE),
        NOT_SMALLER: (verdict == WORSE or low > -MARGIN, verdict == BETTER),
    }[relation]
    return HOLDS if holds else FAILS if fails else UNDECIDED
