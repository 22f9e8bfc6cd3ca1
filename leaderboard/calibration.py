r"""What a metric can resolve on a task: its calibrated range, and how it answers known corruptions.

Rows in, tables and plots out. A row is the value of one metric on one unit and seed: either of a reference of the
task (``ladder`` is its name, ``dose`` 0), or of the ceiling, corrupted by a dose of a ladder; dose 0 is the ceiling
itself.

With :math:`d_u` the range ceiling − floor of unit :math:`u`, turned so that better is larger, averaged over seeds, the
calibrated range is

.. math:: R = \frac{\bar d}{\sqrt{\bar d^2 + \operatorname{var}_u(d)}} \in [-1, 1],

the signed root of the reliability with which one unit tells the ceiling from the floor: 1 where the range is the same
in every unit, 0 where it is noise, negative where the floor wins. ``docs/calibration.md`` says why.
"""

import io
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import nctdtrinc, stdtrit

from leaderboard.comparison import BASELINE, CEILING, FLOOR
from leaderboard.files import replace_whole
from leaderboard.statistics import ALPHA, Array
from leaderboard.writers import DASH, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCES = (FLOOR, BASELINE, CEILING)
#: A metric is too narrow when the lower limit of its calibrated range is below this.
NARROW = 0.2
#: With fewer units than this no interval is worth a verdict on a metric.
MIN_UNITS = 3
#: Differences below this share of the values are rounding.
RESOLUTION = 1e-6
#: What is left after so many decimals is rounding: an error of 0 may be computed as 1e-30.
DECIMALS = 12
RESOLVES, TOO_NARROW, NOT_JUDGED = "resolves", "too narrow", "not judged"
#: Changes up to this share of the range ceiling − floor are no changes.
FLAT = 0.02

WORSE, CLIFF, UNMOVED, INVERTED, NON_MONOTONE = "worse", "cliff", "flat", "inverted", "non-monotone"
UNCLEAR, UNKNOWN = "unclear", "undefined"
FLAGGED = (INVERTED, NON_MONOTONE)
_COLOURS = {WORSE: "#2b6ca3", CLIFF: "#c77700", UNMOVED: "#777777", INVERTED: "#c0262d", NON_MONOTONE: "#c0262d"}
_HOW_TO_READ = (
    f"Calibrated range: mean over units of {CEILING} − {FLOOR}, divided by the root of its square plus its variance "
    f"between units (1: the same in every unit, 0: noise). A metric whose lower 95 % limit is under {NARROW}, with "
    f"{CEILING} not above {FLOOR} in every unit, is *too narrow* to resolve methods on the task; "
    f"no verdict under {MIN_UNITS} units. Above {BASELINE}: ({CEILING} − {BASELINE})/({CEILING} − {FLOOR}), the share "
    "of the range that the strongest simple baseline leaves; for reading, no rule.",
    "Ladders: the ceiling's answer, corrupted by doses 0 to 1; in brackets the share of the range lost at half and at "
    "full dose. *worse*: worse with dose, as expected; *cliff*: only the full dose is seen; *flat*: no dose is seen; "
    f"*inverted*: a step gains more than {FLAT:.0%} of the range and more than its noise, and no dose loses; "
    "*non-monotone*: a step gains so, and some dose loses; *unclear*: the full dose loses nothing, and no step gains "
    "more than its noise; *undefined*: no unit has values at all doses.",
)


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval and the number of units that it rests on; NaN is "not defined"."""

    value: float
    low: float
    high: float
    n_units: int


UNDEFINED = Estimate(np.nan, np.nan, np.nan, 0)


def ratio_of_means(numerator: Array, denominator: Array) -> Estimate:
    """Ratio of means over units with Student's interval on the linearised ratio; NaN where the range is not positive.

    Parameters
    ----------
    numerator, denominator : (n_units,), finite.
    """
    n = len(numerator)
    if not n or not denominator.mean() > 0:
        return Estimate(np.nan, np.nan, np.nan, n)
    value = float(numerator.mean() / denominator.mean())
    if n == 1:
        return Estimate(value, np.nan, np.nan, 1)
    left = (numerator - value * denominator) / denominator.mean()
    half = float(stdtrit(n - 1, 1 - ALPHA / 2) * np.sqrt((left**2).sum() / (n * (n - 1))))
    return Estimate(value, value - half, value + half, n)


def calibrated_range(floor: Array, ceiling: Array, sign: float) -> Estimate:
    r"""The range ceiling − floor of a metric against its spread over units, in [−1, 1], with its 95 % interval.

    With :math:`d_u` the range of unit :math:`u`, :math:`R = \bar d / \sqrt{\bar d^2 + \operatorname{var}_u(d)}`.
    The interval is the exact one for normal ranges, by the non-central t distribution of mean/std; none with one unit.
    Measured (800 draws each of normal, exponential and t ranges, 5 to 40 units), its lower limit, on which the rule
    rests, is below the truth in 95 to 99 %, where 97.5 is due; that of the bootstrap over units in 80 to 95 %, as its
    standard deviations are too small. With a long tail on the wrong side both are worse: 85 %, and 70 to 90 %.

    Parameters
    ----------
    floor, ceiling : (n_units,), averaged over seeds; NaN where missing.
    sign : 1 where higher is better, −1 where lower is.
    """
    ranges = _ranges(floor, ceiling, sign)
    n_units = len(ranges)
    if n_units == 0:
        return UNDEFINED
    if not ranges.any():
        return Estimate(0.0, 0.0, 0.0, n_units)
    if n_units == 1:
        return Estimate(float(np.sign(ranges[0])), np.nan, np.nan, 1)
    mean, std = float(ranges.mean()), float(ranges.std(ddof=1))
    value = mean / math.hypot(mean, std)
    root = math.sqrt(n_units)
    # scipy's inverse does not come back for very negative t, so the interval of the mirror image is taken
    t = min(root * abs(mean) / std if std > 0 else math.inf, 1e4)
    limits = [float(nctdtrinc(n_units - 1, p, t)) / root for p in (1 - ALPHA / 2, ALPHA / 2)]
    low, high = sorted(math.copysign(1.0, mean) * limit / math.hypot(1, limit) for limit in limits)
    return Estimate(value, low, high, n_units)


def always_above(floor: Array, ceiling: Array, sign: float) -> bool:
    """Whether the ceiling is above the floor, by more than rounding, in every unit with both; False where none has.

    Parameters
    ----------
    floor, ceiling, sign : as for :func:`calibrated_range`.
    """
    ranges = _ranges(floor, ceiling, sign)
    return len(ranges) > 0 and bool((ranges > 0).all())


def narrowness(span: Estimate, above: bool = False) -> str:
    """``too narrow``, ``resolves``, or ``not judged`` where there are too few units.

    Parameters
    ----------
    span : the calibrated range.
    above : whether the ceiling is above the floor in every unit (:func:`always_above`). Such a metric resolves, however
        much its range differs between units: a range of 4 in one and of 50 in another one makes the normal interval
        wide, and says nothing against either.
    """
    if span.n_units == 0 or (span.n_units < MIN_UNITS and span.low != 0.0):
        return NOT_JUDGED
    return TOO_NARROW if span.low < NARROW and not above else RESOLVES


def _ranges(floor: Array, ceiling: Array, sign: float) -> Array:
    """The range of each unit that has both, better being larger; 0 where it is rounding."""
    there = np.isfinite(floor) & np.isfinite(ceiling)
    floor, ceiling = floor[there], ceiling[there]
    ranges = sign * (ceiling - floor)
    ranges[np.abs(ranges) <= RESOLUTION * np.maximum(np.abs(floor), np.abs(ceiling))] = 0.0
    return ranges


def judge(values: Array, doses: Array, span: float) -> dict[str, float | str]:
    """How a metric answers one ladder.

    Parameters
    ----------
    values : (n_units, n_doses), turned so that better is larger; units with a NaN are left out.
    doses : (n_doses,), rising, the first 0 and the last 1.
    span : mean range ceiling − floor of the metric; where it is not positive, the largest value's size stands for it.

    Returns
    -------
    record : half and full (shares of the range lost at half and at full dose), monotonicity (−Spearman of mean
        score against dose: 1 where it only falls), worst_step (the largest gain of a step, as a share of the range,
        whose interval over units excludes 0; NaN where no step gains so) and verdict.
    """
    values = values[np.isfinite(values).all(axis=1)].round(DECIMALS)
    nothing: dict[str, float | str] = dict.fromkeys(("half", "full", "monotonicity", "worst_step"), math.nan)
    if len(values) == 0:
        return nothing | {"verdict": UNKNOWN}
    means = values.mean(axis=0)
    size = float(np.abs(values).max())
    scale = span if span > RESOLUTION * size else size or 1.0
    change = (means - means[0]) / scale
    half, full = -float(np.interp(0.5, doses, change)), -float(change[-1])
    if np.abs(change).max() <= FLAT:
        return nothing | {"half": half, "full": full, "verdict": UNMOVED}
    unit = np.full(len(values), scale)
    steps = [ratio_of_means(step, unit) for step in np.diff(values, axis=1).T]
    wrong = [step.value for step in steps if step.value > FLAT and step.low > 0]
    if wrong:
        verdict = INVERTED if change.min() >= -FLAT else NON_MONOTONE
    elif full <= FLAT:
        verdict = UNCLEAR
    else:
        verdict = CLIFF if np.abs(change[:-1]).max() <= FLAT else WORSE
    ranks = pd.Series(means).round(DECIMALS).corr(pd.Series(doses), method="spearman")
    return {
        "half": half,
        "full": full,
        "monotonicity": -round(float(ranks), DECIMALS),
        "worst_step": max(wrong, default=math.nan),
        "verdict": verdict,
    }


def build(rows: pd.DataFrame) -> pd.DataFrame:
    """The calibration table: one row per task, metric and ladder.

    Parameters
    ----------
    rows : columns task, metric, ladder, dose, unit, seed, value, better, and primary (bool). May be empty.

    Returns
    -------
    table : task, metric, primary, better, n_units, n_seeds, floor, baseline, ceiling (means over units), range,
        calibrated and headroom, each with _low and _high, narrow (:func:`narrowness`), ladder, half, full,
        monotonicity, worst_step, verdict (:func:`judge`), flags (of the metric on the task, the same in all its rows)
        and dose_0 … dose_1, the means over units. A metric that has no ladder has one row with an empty one.
    """
    groups = rows.groupby(["task", "metric"], sort=False)
    records = [row for (task, metric), group in groups for row in _metric_rows(str(task), str(metric), group)]
    return pd.DataFrame(records, columns=None if records else ["task", "metric", "ladder"])


def _metric_rows(task: str, metric: str, group: pd.DataFrame) -> list[dict[str, object]]:
    better = str(group["better"].iloc[0])
    sign = -1.0 if better == "lower" else 1.0
    values = _by_unit(group)
    references = {c: _column(values, c, 0.0) for c in REFERENCES}
    ranges = sign * (references[CEILING] - references[FLOOR])
    ranges = ranges[np.isfinite(ranges)]
    raw = ratio_of_means(ranges, np.ones(len(ranges)))
    calibrated = calibrated_range(references[FLOOR], references[CEILING], sign)
    common = np.isfinite(np.stack(list(references.values()))).all(axis=0)
    floor, baseline, ceiling = (sign * references[c][common] for c in REFERENCES)
    headroom = ratio_of_means(ceiling - baseline, ceiling - floor)
    shared: dict[str, object] = {
        "task": task,
        "metric": metric,
        "primary": bool(group["primary"].iloc[0]),
        "better": better,
        "n_units": len(values),
        "n_seeds": group["seed"].nunique(),
        **{c: _mean(values) for c, values in references.items()},
        **_estimate("range", raw),
        **_estimate("calibrated", calibrated),
        **_estimate("headroom", headroom),
        "narrow": narrowness(calibrated, always_above(references[FLOOR], references[CEILING], sign)),
    }
    records: list[dict[str, object]] = []
    for ladder in (name for name in group["ladder"].unique() if name not in REFERENCES):
        of_ladder = values[ladder]
        doses = of_ladder.columns.to_numpy(float)
        found = judge(sign * of_ladder.to_numpy(float), doses, raw.value)
        means = {f"dose_{dose:g}": _mean(of_ladder[dose].to_numpy(float)) for dose in doses}
        records.append({"ladder": str(ladder), **found, **means})
    flags = [TOO_NARROW] if shared["narrow"] == TOO_NARROW else []
    flags += [f"{record['verdict']}: {record['ladder']}" for record in records if record["verdict"] in FLAGGED]
    shared["flags"] = "; ".join(flags)
    return [shared | record for record in records] or [shared | {"ladder": "", "verdict": UNKNOWN}]


def _by_unit(group: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, units × (ladder, dose); NaN where a value is missing or not finite."""
    value = group["value"].astype(float)
    group = group.assign(value=value.where(np.isfinite(value)))
    return group.pivot_table(index="unit", columns=["ladder", "dose"], values="value", aggfunc="mean", dropna=False)


def _column(values: pd.DataFrame, ladder: str, dose: float) -> Array:
    column = (ladder, dose)
    return values[column].to_numpy(float) if column in values.columns else np.full(len(values), np.nan)


def _mean(values: Array) -> float:
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else math.nan


def _estimate(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def to_markdown(table: pd.DataFrame, header_lines: Sequence[str] = ()) -> str:
    """The calibration as one Markdown page, a table per task; ``header_lines`` are plain text."""
    blocks = ["# Calibration of metrics", *map(escape, header_lines)]
    if table.empty:
        return "\n\n".join([*blocks, "nothing was measured"]) + "\n"
    blocks += _HOW_TO_READ
    for task, group in table.groupby("task", sort=False):
        metrics = group.drop_duplicates("metric")
        ladders = [ladder for ladder in group["ladder"].unique() if ladder]
        text = pd.DataFrame({"metric": [_metric_name(row) for row in metrics.to_dict("records")]})
        for reference in REFERENCES:
            text[reference] = [_number(value) for value in metrics[reference]]
        for heading, name in (("calibrated range", "calibrated"), (f"above {BASELINE}", "headroom")):
            limits = metrics[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
            text[f"{heading} [95 %]"] = [_interval(*row) for row in limits]
        text["verdict"] = [f"**{v}**" if v == TOO_NARROW else v for v in metrics["narrow"]]
        for ladder in ladders:
            found = group[group["ladder"] == ladder].set_index("metric").to_dict("index")
            text[escape(ladder)] = [_cell(found[metric]) if metric in found else DASH for metric in metrics["metric"]]
        seeds = int(metrics["n_seeds"].max())
        blocks += [
            f"## {escape(task)}",
            f"{int(metrics['n_units'].max())} units, {seeds} seed{'' if seeds == 1 else 's'}; primary metrics in bold.",
            str(text.to_markdown(index=False, disable_numparse=True)),
            "\n".join(f"- {escape(line)}" for line in findings(group)),
            f"![{escape(task)}]({plot_name(str(task))})",
        ]
    return "\n\n".join(blocks) + "\n"


def findings(group: pd.DataFrame) -> list[str]:
    """What is flagged on one task, in lines of plain text."""
    metrics = group.drop_duplicates("metric")
    lines = []
    for heading, chosen in (
        ("too narrow to resolve methods", metrics["narrow"] == TOO_NARROW),
        (f"too few units or no value of {FLOOR} or {CEILING}, not judged", metrics["narrow"] == NOT_JUDGED),
    ):
        if chosen.any():
            lines.append(f"{heading}: {', '.join(metrics.loc[chosen, 'metric'])}")
    near = metrics.loc[metrics["headroom"] < NARROW, "metric"]
    if len(near):
        lines.append(f"{BASELINE} is within {NARROW:.0%} of the range of {CEILING}: {', '.join(near)}")
    for verdict in (NON_MONOTONE, INVERTED):
        found = group[group["verdict"] == verdict]
        if not found.empty:
            named = (f"{row.metric} ({row.ladder}, a step gains {row.worst_step:.0%})" for row in found.itertuples())
            lines.append(f"{verdict}: {', '.join(named)}")
    unmoved = group[group["verdict"] == UNMOVED].groupby("ladder", sort=False)["metric"].agg(", ".join)
    lines += [f"flat under {ladder}: {metrics}" for ladder, metrics in unmoved.items()]
    return lines or ["nothing is flagged"]


def plot_name(task: str) -> str:
    """File name of a task's figure."""
    return f"{task.replace('/', '.')}.png"


def draw(rows: pd.DataFrame, table: pd.DataFrame, task: str) -> bytes:
    """One task's ladders as a PNG: metrics down, ladders across; thin lines are units, the thick one their mean."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    table, rows = table[(table["task"] == task) & (table["ladder"] != "")], rows[rows["task"] == task]
    metrics, ladders = list(table["metric"].unique()), list(table["ladder"].unique())
    figure = Figure(figsize=(2.6 + 1.75 * len(ladders), 1.2 + 1.3 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), len(ladders), sharex=True, sharey="row", squeeze=False)
    figure.suptitle(f"{task}: the ceiling's answer under rising doses of corruption", fontsize=11)
    for i, metric in enumerate(metrics):
        values = _by_unit(rows[rows["metric"] == metric])
        found = table[table["metric"] == metric].set_index("ladder").to_dict("index")
        for j, ladder in enumerate(ladders):
            axes: Axes = panels[i, j]
            if ladder in found:
                _draw_panel(axes, values[ladder], found[ladder])
            else:
                axes.set_axis_off()
            if i == 0:
                axes.annotate(
                    ladder,
                    (0.5, 1),
                    xytext=(0, 16),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    ha="center",
                    fontsize=10,
                    fontweight="bold",
                )
            if i == len(metrics) - 1:
                axes.set_xlabel("dose", fontsize=9)
        about = next(iter(found.values()))
        arrow = "↑" if about["better"] == "higher" else "↓"
        narrow = f"\n{about['narrow']}" if about["narrow"] != RESOLVES else ""
        panels[i, 0].set_ylabel(
            f"{metric} {arrow}{narrow}",
            rotation=0,
            ha="right",
            va="center",
            fontsize=9,
            fontweight="bold" if about["primary"] else "normal",
            color=_COLOURS[INVERTED] if about["narrow"] == TOO_NARROW else "black",
        )
    handles = [Line2D([], [], color="black", lw=1, ls=style, label=name) for name, style in _STYLES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


_STYLES = {FLOOR: ":", BASELINE: "--", CEILING: "-"}


def _draw_panel(axes: "Axes", values: pd.DataFrame, found: dict[str, object]) -> None:
    doses = values.columns.to_numpy(float)
    colour = _COLOURS.get(str(found["verdict"]), "black")
    for reference, style in _STYLES.items():
        level = found[reference]
        if isinstance(level, float) and math.isfinite(level):
            axes.axhline(level, color="black", lw=0.7, ls=style, alpha=0.6)
    axes.plot(doses, values.to_numpy(float).T, color=colour, lw=0.5, alpha=0.35)
    axes.plot(doses, values.mean().to_numpy(float), color=colour, lw=1.8, marker="o", ms=3)
    axes.margins(y=0.12)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.tick_params(labelsize=7)
    axes.set_title(str(found["verdict"]), loc="left", fontsize=8, color=colour, pad=2)


def write(rows: pd.DataFrame, directory: str | Path, header_lines: Sequence[str] = ()) -> list[Path]:
    """Write ``calibration.md``, ``.csv`` (the table) and ``.parquet`` (the rows), and one figure per task.

    Every file is replaced whole or not at all; figures are named after the task, a dot for the slash.

    Returns
    -------
    paths : of all files, the Markdown first.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    table = build(rows)
    parquet = io.BytesIO()
    rows.to_parquet(parquet, index=False)
    contents = {
        "calibration.md": to_markdown(table, header_lines).encode(),
        "calibration.csv": table.to_csv(index=False, lineterminator="\n").encode(),
        "calibration.parquet": parquet.getvalue(),
    }
    if not table.empty:
        tasks = [str(task) for task in table.loc[table["ladder"] != "", "task"].unique()]
        contents |= {plot_name(task): draw(rows, table, task) for task in tasks}
    for name, content in contents.items():
        replace_whole(directory / name, content)
    return [directory / name for name in contents]


def _metric_name(row: dict[Hashable, Any]) -> str:
    name = f"{escape(row['metric'])} {'↑' if row['better'] == 'higher' else '↓'}"
    return f"**{name}**" if row["primary"] else name


def _cell(found: dict[str, object]) -> str:
    verdict = f"**{found['verdict']}**" if found["verdict"] in FLAGGED else str(found["verdict"])
    half, full = found["half"], found["full"]
    if not (isinstance(half, float) and isinstance(full, float) and math.isfinite(full)):
        return verdict
    return f"{verdict} ({round(half, 2) + 0.0:.2f}, {round(full, 2) + 0.0:.2f})"


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else DASH


def _interval(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return DASH
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" if math.isfinite(low) else f"{value:.2f}"
