"""The figures of the report, with plotly: frames in, figures out.

Colours are Okabe and Ito's, which people who see colours differently tell apart (jfly.uni-koeln.de/color), and go with
a marker shape each, so that no colour has to be told from another. What depends on the light or dark theme (text, grid)
is left to the page.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from leaderboard.association import BETWEEN, DISTANCE, WITHIN
from leaderboard.statistics import Array
from leaderboard.table import BASELINE, CEILING, FLOOR, STRUCTURE, TaskTable

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C7A00", "#7F7F7F")
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon")
REFERENCE = "#7F7F7F"
MAX_CELLS, MAX_PICTURES, MAX_EPOCHS = 200, 12, 150
#: Axes of relative errors reach this factor beyond the ceiling and the floor, and show at least these.
AROUND, LEAST, MOST = 1.12, 0.8, 1.25

#: A method's colour and marker.
Style = tuple[str, str]


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """The colour and marker of each method: the same in all figures, and in other runs but for a rare collision."""
    pairs = [(colour, shape) for shape in SHAPES for colour in OKABE_ITO]
    found: dict[str, Style] = {}
    for method in sorted(set(methods)):
        first = zlib.crc32(method.encode()) % len(pairs)
        free = (pairs[(first + k) % len(pairs)] for k in range(len(pairs)))
        found[method] = next((one for one in free if one not in found.values()), pairs[first])
    return found


def profile(tables: Sequence[TaskTable], of: Mapping[str, Style]) -> go.Figure:
    """Every method's relative error on every task, with its interval; bars mark ceiling and floor."""
    figure = go.Figure()
    names = [_title(table) for table in tables]
    shown = [m for m in of if any((table.frame["method"] == m).any() for table in tables)]
    edges = edges_of(tables)
    for i, method in enumerate(shown):
        colour, shape = of[method]
        rows = [(k, row) for k, table in enumerate(tables) for row in _rows(table, method)]
        offset = (i - (len(shown) - 1) / 2) * 0.7 / max(len(shown), 1)
        figure.add_scatter(
            x=[_within(row["relative_error"], edges) for _, row in rows],
            y=[k + offset for k, _ in rows],
            error_x=_bars([row for _, row in rows], edges),
            mode="markers",
            name=method,
            marker={
                "color": colour,
                "symbol": [_marker(row["relative_error"], shape, edges) for _, row in rows],
                "size": 9,
            },
            customdata=[[names[k], _interval(row)] for k, row in rows],
            hovertemplate=f"<b>{method}</b> · %{{customdata[0]}}<br>%{{customdata[1]}}<extra></extra>",
        )
    for k, table in enumerate(tables):
        for row in [*_rows(table, CEILING), *_rows(table, FLOOR)]:
            x = _within(row["relative_error"], edges)
            across = {"x0": x, "x1": x, "y0": k - 0.45, "y1": k + 0.45}
            figure.add_shape(type="line", name="themed", line_width=3, **across)
    figure.add_vline(x=1, line_color=REFERENCE, line_dash="dot")
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, autorange="reversed", automargin=True)
    _error_axis(figure, edges, f"relative error, {BASELINE} = 1; bars: {CEILING} and {FLOOR}")
    return _laid_out(figure, max(320, 60 * len(names) + 40 + 14 * len(names) * len(shown) // 3))


def intervals(table: TaskTable, of: Mapping[str, Style]) -> go.Figure:
    """The relative errors of one task, smallest on top, with the references as lines."""
    frame = table.frame[(table.frame["role"] == "method") & np.isfinite(table.frame["relative_error"])]
    figure, edges = go.Figure(), edges_of([table])
    for row in frame.to_dict("records"):
        colour, shape = of[str(row["method"])]
        figure.add_scatter(
            x=[_within(row["relative_error"], edges)],
            y=[row["method"]],
            error_x=_bars([row], edges),
            mode="markers",
            marker={"color": colour, "symbol": _marker(row["relative_error"], shape, edges), "size": 11},
            hovertemplate=f"<b>{row['method']}</b><br>{_interval(row)}<extra></extra>",
            showlegend=False,
        )
    for reference, dash in ((FLOOR, "dot"), (BASELINE, "solid"), (CEILING, "dash"), (STRUCTURE, "dashdot")):
        for row in _rows(table, reference):
            x = _within(row["relative_error"], edges)
            # names of neighbours stand one above the other
            above = 22 if reference in (BASELINE, STRUCTURE) else 8
            figure.add_vline(x=x, line_color=REFERENCE, line_dash=dash)
            # an annotation of a logarithmic axis is placed by the logarithm
            place = {"x": np.log10(x), "y": 1, "yref": "paper", "yshift": above, "showarrow": False}
            figure.add_annotation(text=reference, **place)
    figure.update_yaxes(autorange="reversed", automargin=True)
    _error_axis(figure, edges, f"relative error, 95 % interval over {table.replicates}")
    return _laid_out(figure, 160 + 26 * len(frame))


def heat(table: TaskTable) -> go.Figure:
    """Relative errors by method and held-out unit; grey is no result."""
    methods = list(table.frame.loc[table.frame["role"] == "method", "method"])
    values = table.comparison.units.reindex(methods).dropna(how="all") / np.log(2)
    figure = _squares(-values, (-1, 0, 1), "halvings", "%{y} · %{x}<br>error halved %{z:.2f} times")
    figure.update_xaxes(title=f"held out; how often the error of {BASELINE} is halved (blue) or doubled (red)")
    return figure


def p_better(pairs: pd.DataFrame, order: Sequence[str]) -> go.Figure:
    """P(error of the row < error of the column) of methods and baseline; grey is not compared."""
    names = [name for name in order if (pairs[["method", "other"]] == name).any(axis=None)]
    square = pd.DataFrame(np.nan, index=names, columns=names)
    for method, other, p in pairs[["method", "other", "p_better"]].itertuples(index=False):
        square.loc[method, other], square.loc[other, method] = p, 1 - p
    return _squares(square, (0, 0.5, 1), "P", "P(%{y} better than %{x}) = %{z:.2f}")


def _squares(values: pd.DataFrame, colours: tuple[float, float, float], name: str, hover: str) -> go.Figure:
    """A matrix as coloured squares, red at the least of ``colours``, white in the middle; grey is no value."""
    low, middle, high = colours
    figure = go.Figure(
        go.Heatmap(
            z=values.to_numpy(float),
            x=[str(column) for column in values.columns],
            y=list(values.index),
            zmin=low,
            zmid=middle,
            zmax=high,
            colorscale="RdBu",
            colorbar={"title": name, "thickness": 12},
            hovertemplate=f"{hover}<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(type="category", automargin=True)
    return _laid_out(figure, 150 + 24 * len(values))


def references(rows: pd.DataFrame, primary: Mapping[str, str]) -> go.Figure:
    """What a task can resolve: each primary metric's value of floor, baseline and ceiling in each held-out unit."""
    names = [FLOOR, BASELINE, CEILING]
    arrows = {metric: "↑" if better == "higher" else "↓" for metric, better in primary.items()}
    titles = [f"{metric} {arrow}" for metric, arrow in arrows.items()]
    figure = make_subplots(rows=1, cols=len(primary), subplot_titles=titles)
    of_reference = rows[(rows["role"] == "reference") & (rows["status"] == "ok")]
    for k, metric in enumerate(primary, 1):
        values = of_reference[of_reference["metric"] == metric].pivot_table(
            index="unit", columns="method", values="value", aggfunc="mean"
        )
        values = values.reindex(columns=names)
        for unit, row in values.iterrows():
            figure.add_scatter(
                x=names,
                y=row.to_list(),
                mode="lines+markers",
                line={"color": REFERENCE, "width": 1},
                opacity=0.6,
                name=str(unit),
                hovertemplate=f"{unit} · %{{x}}<br>%{{y:.3g}}<extra></extra>",
                showlegend=False,
                row=1,
                col=k,
            )
        figure.add_scatter(
            x=names,
            y=values.mean().to_list(),
            mode="lines+markers",
            line={"color": OKABE_ITO[0], "width": 4},
            hovertemplate="mean · %{x}<br>%{y:.3g}<extra></extra>",
            showlegend=False,
            row=1,
            col=k,
        )
    return _laid_out(figure, 280)


def training(curves: pd.DataFrame, names: Mapping[str, str], of: Mapping[str, Style]) -> go.Figure:
    """The watched loss of one fit of each method: 1 in the first epoch, 0 where it is least."""
    figure = go.Figure()
    for job_id, group in curves.groupby("job_id", sort=False):
        method = names[str(job_id)]
        term = "validation" if (group["term"] == "validation").any() else str(group["term"].iloc[0])
        values = group.loc[group["term"] == term, "value"].to_numpy(np.float32)
        least = np.nanmin(values)
        if not values[0] > least:
            continue
        drawn = _spread(len(values), MAX_EPOCHS)
        figure.add_scatter(
            x=drawn,
            y=((values - least) / (values[0] - least))[drawn],
            customdata=values[drawn],
            mode="lines",
            name=method,
            line={"color": of[method][0], "dash": "dot" if "@" in method else "solid"},
            hovertemplate=f"<b>{method}</b> · epoch %{{x}}<br>{term} %{{customdata:.5g}}<extra></extra>",
        )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title="watched loss, first epoch = 1, least = 0", rangemode="tozero")
    return _laid_out(figure, 340)


def embeddings(pictures: pd.DataFrame, names: Mapping[str, str]) -> go.Figure:
    """Each method's codes of the same cells: colour is the content label, open markers were held out of training."""
    shown = list(pictures["job_id"].drop_duplicates())[:MAX_PICTURES]
    n_columns = min(4, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure = make_subplots(rows=n_rows, cols=n_columns, subplot_titles=[names[str(c)] for c in shown])
    label = "content" if pictures["content"].nunique() > 1 else "environment"
    labels = sorted(pictures[label].unique())
    named: set[str] = set()
    for k, job_id in enumerate(shown):
        cells = pictures[pictures["job_id"] == job_id]
        cells = cells.iloc[_spread(len(cells), MAX_CELLS)]  # in the order of the data, so that the first are alike
        # what cells of a trace have in common is written once: pictures are most of the page's own weight
        for (value, environment, trained), group in cells.groupby([label, "environment", "trained"]):
            i = labels.index(value)
            colour, shape = OKABE_ITO[i % 8], SHAPES[(i + i // 8) % 8]
            where = f"{value} · {environment}" if label == "content" else str(value)
            figure.add_scatter(
                x=group["x"].to_numpy(np.float32),
                y=group["y"].to_numpy(np.float32),
                mode="markers",
                marker={"color": colour, "size": 5, "symbol": shape if trained else f"{shape}-open"},
                name=str(value),
                legendgroup=str(value),
                showlegend=value not in named,
                hovertemplate=f"{where}{'' if trained else ' · held out'}<extra>{names[str(job_id)]}</extra>",
                row=k // n_columns + 1,
                col=k % n_columns + 1,
            )
            named.add(value)
    figure.update_xaxes(showticklabels=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, zeroline=False)
    return _laid_out(figure, 90 + 210 * n_rows)


def distance(jobs: pd.DataFrame, table: TaskTable, of: Mapping[str, Style]) -> go.Figure:
    """Relative errors of held-out units against how far they are from the training cells."""
    figure, edges = go.Figure(), edges_of([table])
    for method, group in jobs.dropna(subset=[DISTANCE, "score"]).groupby("method"):
        means = group.groupby("unit")[[DISTANCE, "score"]].mean().sort_values(DISTANCE)
        colour, shape = of[str(method)]
        errors = np.exp(-means["score"])
        figure.add_scatter(
            x=means[DISTANCE],
            y=errors.clip(*edges),
            text=[
                f"{unit}<br>distance {x:.2f}, relative error {y:.3f}"
                for unit, x, y in zip(means.index, means[DISTANCE], errors, strict=True)
            ],
            mode="markers",
            name=str(method),
            marker={"color": colour, "symbol": shape, "size": 8},
            hovertemplate=f"<b>{method}</b> · %{{text}}<extra></extra>",
        )
    figure.update_xaxes(title="distance of the held-out unit (1 = like training cells)", type="log")
    figure.update_yaxes(title="relative error", type="log")
    return _laid_out(figure, 360)


def disentanglement(points: Mapping[str, tuple[Array, Array]], metric: str, of: Mapping[str, Style]) -> go.Figure:
    """A disentanglement metric against the skill, between and within methods.

    Parameters
    ----------
    points : for each level, the pairs (skill, metric) and the method of each.
    """
    figure = make_subplots(rows=1, cols=2, subplot_titles=[BETWEEN, WITHIN])
    for k, level in enumerate((BETWEEN, WITHIN), 1):
        pairs, methods = points[level]
        for method in sorted(set(methods)):
            here = methods == method
            colour, shape = of[str(method)]
            figure.add_scatter(
                x=pairs[here, 1],
                y=pairs[here, 0],
                mode="markers",
                name=str(method),
                legendgroup=str(method),
                showlegend=k == 1,
                marker={"color": colour, "symbol": shape, "size": 8 if k == 1 else 5, "opacity": 1 if k == 1 else 0.6},
                hovertemplate=f"<b>{method}</b><br>{metric} %{{x:.2f}}, skill %{{y:.2f}}<extra></extra>",
                row=1,
                col=k,
            )
    for k, unit in enumerate(("rank in its task, −1 to 1", "deviation, in standard deviations"), 1):
        figure.update_xaxes(title=f"{metric}: {unit}", row=1, col=k)
        figure.update_yaxes(title="skill (−log relative error): the same", row=1, col=k)
    return _laid_out(figure, 380)


def cost(table: TaskTable, of: Mapping[str, Style]) -> go.Figure:
    """Relative error against the seconds of a fit; the line joins those that no other beats in both."""
    frame = table.frame[(table.frame["role"] == "method") & np.isfinite(table.frame["relative_error"])]
    frame = frame[frame["fit_seconds"] > 0].sort_values("fit_seconds")
    figure, edges = go.Figure(), edges_of([table])
    best = frame[frame["relative_error"] <= frame["relative_error"].cummin()]
    figure.add_scatter(
        x=best["fit_seconds"],
        y=best["relative_error"].clip(*edges),
        mode="lines",
        line={"shape": "hv", "color": REFERENCE, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    for row in frame.to_dict("records"):
        colour, shape = of[str(row["method"])]
        figure.add_scatter(
            x=[row["fit_seconds"]],
            y=[_within(row["relative_error"], edges)],
            mode="markers",
            name=str(row["method"]),
            marker={"color": colour, "symbol": shape, "size": 10},
            hovertemplate=f"<b>{row['method']}</b><br>%{{x:.3g}} s, relative error {_interval(row)}<extra></extra>",
        )
    figure.update_xaxes(title="seconds of a fit, median", type="log")
    figure.update_yaxes(title="relative error", type="log")
    return _laid_out(figure, 340)


def growth(sizes: pd.DataFrame, of: Mapping[str, Style]) -> go.Figure:
    """Seconds against size, one line a method; both logarithmic, so that a power of the size is straight.

    Parameters
    ----------
    sizes : method, task, values (cells × genes of the training data), seconds.
    """
    figure = go.Figure()
    for method, group in sizes.groupby("method"):
        group = group.sort_values("values")
        colour, shape = of[str(method)]
        figure.add_scatter(
            x=group["values"],
            y=group["seconds"],
            text=group["task"],
            mode="lines+markers",
            name=str(method),
            line={"color": colour, "width": 1},
            marker={"color": colour, "symbol": shape, "size": 8},
            hovertemplate=f"<b>{method}</b> · %{{text}}<br>%{{x:.3g}} values, %{{y:.3g}} s<extra></extra>",
        )
    figure.update_xaxes(title="cells × genes of the training data", type="log")
    figure.update_yaxes(title="seconds of a job's fits, median", type="log")
    return _laid_out(figure, 360)


def _spread(number: int, most: int) -> NDArray[np.int_]:
    """At most so many of the places 0 to number − 1, evenly, both ends among them."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(int))


def _title(table: TaskTable) -> str:
    return table.task if table.preset == "default" else f"{table.task} ({table.preset})"


def _rows(table: TaskTable, method: str) -> list[dict[str, float]]:
    """The row of a method that has a relative error: one or none."""
    frame = table.frame
    return frame[(frame["method"] == method) & np.isfinite(frame["relative_error"])].to_dict("records")


def edges_of(tables: Sequence[TaskTable]) -> tuple[float, float]:
    """The least and the most that an axis of relative errors shows: from the ceiling to just above the floor."""
    found = pd.concat([table.frame for table in tables])
    ends = {name: found.loc[found["method"] == name, "relative_error"].dropna() for name in (CEILING, FLOOR)}
    least, most = ends[CEILING].min(), ends[FLOOR].max()
    return (
        float(min(least / AROUND if least > 0 else LEAST, LEAST)),
        float(max(most * AROUND if np.isfinite(most) else MOST, MOST)),
    )


def _error_axis(figure: go.Figure, edges: tuple[float, float], title: str) -> None:
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)
    shown = [tick for tick in ticks if edges[0] <= tick <= edges[1]]
    figure.update_xaxes(title=title, type="log", range=[float(np.log10(edge)) for edge in edges])
    figure.update_xaxes(tickvals=shown, ticktext=[f"{tick:g}" for tick in shown])


def _bars(rows: Sequence[Mapping[str, float]], edges: tuple[float, float]) -> dict[str, object]:
    """Error bars from low to high; none where there is no interval."""
    ends = [{key: _within(row[key], edges) for key in ("relative_error", "low", "high")} for row in rows]
    above = [row["high"] - row["relative_error"] if np.isfinite(row["high"]) else 0.0 for row in ends]
    below = [row["relative_error"] - row["low"] if np.isfinite(row["low"]) else 0.0 for row in ends]
    return {"type": "data", "array": above, "arrayminus": below, "symmetric": False, "thickness": 1.5, "width": 3}


def _interval(row: Mapping[str, float]) -> str:
    interval = f"[{row['low']:.3f}, {row['high']:.3f}]" if np.isfinite(row["low"]) else "(no interval)"
    return f"{row['relative_error']:.3f} {interval}"


def _within(value: float, edges: tuple[float, float]) -> float:
    return float(np.clip(value, *edges))


def _marker(error: float, shape: str, edges: tuple[float, float]) -> str:
    return "triangle-left-open" if error < edges[0] else "triangle-right-open" if error > edges[1] else shape


def _laid_out(figure: go.Figure, height: int) -> go.Figure:
    named = {trace.name for trace in figure.data if trace.name and trace.showlegend is not False}
    legend = 22 * -(-len(named) // 6) if len(named) > 1 else 0
    figure.update_layout(
        template="none",
        height=int(height) + legend,
        margin={"l": 60, "r": 16, "t": 30 + legend, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "yref": "container", "y": 1, "yanchor": "top", "x": 0},
        hoverlabel={"namelength": -1},
    )
    return figure
