"""The figures of the report, with plotly: frames in, figures out.

Colours are Okabe and Ito's, which people who see colours differently tell apart (jfly.uni-koeln.de/color), and go with
a marker shape each, so that no colour has to be told from another. What depends on the light or dark theme (text, grid)
is left to the page.
"""

import html
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from leaderboard.association import BETWEEN, DISTANCE, WITHIN
from leaderboard.formatting import fixed
from leaderboard.sentences import task_title
from leaderboard.statistics import Array
from leaderboard.table import BASELINE, CEILING, FLOOR, STRUCTURE, SuiteTable, TaskTable

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C7A00", "#7F7F7F")
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon")
REFERENCE = "#7F7F7F"
MAX_CELLS, MAX_PICTURES, MAX_EPOCHS = 200, 12, 150
#: A name beside an axis is cut to this many characters; the pointer shows the whole name.
LONGEST = 28
#: A profile of at most this many tasks also has relative errors as numbers.
MAX_WRITTEN = 10
#: Axes of relative errors reach this factor beyond the ceiling and the floor, and show at least these.
AROUND, LEAST, MOST = 1.12, 0.8, 1.25

#: A method's colour and marker.
Style = tuple[str, str]
#: What a number of steps adds to the name of a method.
BUDGET = r"@(passes|steps|max_epochs)=\d+"


def styles(methods: Sequence[str], known: Sequence[str]) -> dict[str, Style]:
    """The colour and marker of each method: the same in all figures and in every run.

    Parameters
    ----------
    methods : those of this run.
    known : all registered methods. Each has a filled marker of its own, as there are at most 64, whichever of them were
        run. Others, such as ``vae@n_latent=5``, have an open one, in the colour of the method that they change.
    """
    pairs = [(colour, shape) for shape in SHAPES for colour in OKABE_ITO]
    found: dict[str, Style] = {}
    for method in sorted(known):
        first = _hash(method) % len(pairs)
        free = (pairs[(first + k) % len(pairs)] for k in range(len(pairs)))
        found[method] = next((style for style in free if style not in found.values()), pairs[first])
    for method in sorted(set(methods) - set(known)):
        name = method.partition("@")[0]
        colour = found[name][0] if name in found else OKABE_ITO[_hash(name) % len(OKABE_ITO)]
        found[method] = colour, f"{SHAPES[_hash(method) % len(SHAPES)]}-open"
    return found


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


def profile(suite: SuiteTable, tables: Sequence[TaskTable]) -> go.Figure:
    """Every method's and reference's relative error on every task, the methods in the order of the suite."""
    methods = list(suite.frame["method"])
    errors = pd.DataFrame({task_title(t): t.frame.set_index("method")["relative_error"] for t in tables})
    errors = errors.reindex(methods).dropna(how="all")
    halvings = errors.map(lambda error: -np.log2(error))
    figure = _squares(halvings, (-1, 0, 1), "halvings", "%{y} · %{x}<br>error halved %{z:.2f} times")
    if len(tables) <= MAX_WRITTEN:
        figure.update_traces(text=errors.map(lambda error: fixed(error, 2)).to_numpy(), texttemplate="%{text}")
    return figure


def intervals(table: TaskTable, of: Mapping[str, Style]) -> go.Figure:
    """The relative errors of one task, smallest on top, with the references as lines."""
    frame = table.frame[(table.frame["role"] == "method") & np.isfinite(table.frame["relative_error"])]
    figure, edges = go.Figure(), edges_of([table])
    rows = frame.to_dict("records")
    figure.add_scatter(
        x=[_within(row["relative_error"], edges) for row in rows],
        y=list(range(len(rows))),
        error_x=_bars(rows, edges),
        mode="markers",
        marker={
            "color": [of[str(row["method"])][0] for row in rows],
            "symbol": [_marker(row["relative_error"], of[str(row["method"])][1], edges) for row in rows],
            "size": 11,
        },
        customdata=[f"<b>{html.escape(str(row['method']))}</b><br>{_interval(row)}" for row in rows],
        hovertemplate="%{customdata}<extra></extra>",
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
    _name_axis(figure, list(frame["method"]))
    _error_axis(figure.update_xaxes, edges, f"relative error [95 %], {table.replicates}")
    return _laid_out(figure, 160 + 26 * len(frame))


def heat(table: TaskTable) -> go.Figure:
    """Relative errors by method or reference and held-out unit; empty is no result."""
    units = table.comparison.units
    values = units.reindex(list(table.frame["method"])).dropna(how="all").drop(index=BASELINE, errors="ignore")
    figure = _squares(-values / np.log(2), (-1, 0, 1), "halvings", "%{y} · %{x}<br>error halved %{z:.2f} times")
    if len(table.draws) > 1:  # units of a draw stand together: one name for all of them
        draws = [unit.partition("/")[0] for unit in units.columns]
        first = [k for k, draw in enumerate(draws) if k == 0 or draw != draws[k - 1]]
        figure.update_xaxes(tickvals=first, ticktext=[draws[k] for k in first])
    return figure


def p_better(pairs: pd.DataFrame, order: Sequence[str]) -> go.Figure:
    """P(error of the row < error of the column) of methods and baseline; empty is not compared."""
    names = [name for name in order if name in {*pairs["method"], *pairs["other"]}]
    first, second = (pd.Index(names).get_indexer(pd.Index(pairs[name])) for name in ("method", "other"))
    square = np.full((len(names), len(names)), np.nan)
    square[first, second], square[second, first] = pairs["p_better"], 1 - pairs["p_better"]
    return _squares(pd.DataFrame(square, names, names), (0, 0.5, 1), "P", "P(%{y} better than %{x}) = %{z:.2f}")


def _squares(values: pd.DataFrame, colours: tuple[float, float, float], name: str, hover: str) -> go.Figure:
    """A matrix as coloured squares, red at the least of ``colours``, white in the middle; empty is no value."""
    low, middle, high = colours
    figure = go.Figure(
        go.Heatmap(
            z=values.to_numpy(float).round(2),
            x=[html.escape(str(column)) for column in values],
            y=[html.escape(str(row)) for row in values.index],
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
    _name_axis(figure, list(values.index))
    columns = [_label(column) for column in values]
    ticks = {"tickvals": list(range(len(columns))), "ticktext": columns}
    figure.update_xaxes(type="category", automargin=True, showgrid=False, **ticks)
    figure.update_yaxes(type="category", showgrid=False)
    return _laid_out(figure, 150 + 24 * len(values))


def _name_axis(figure: go.Figure, names: Sequence[str]) -> None:
    """Rows of a figure, from the top, by their names."""
    ticks = {"tickvals": list(range(len(names))), "ticktext": [_label(name) for name in names]}
    figure.update_yaxes(range=[len(names) - 0.5, -0.5], automargin=True, zeroline=False, **ticks)


def _label(name: object) -> str:
    """A name beside an axis: plotly reads markup, and a long name would leave no room for the figure."""
    text = str(name)
    return html.escape(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")


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
            name=_label(method),
            line={"color": of[method][0], "dash": "dot" if "@" in method else "solid"},
            hovertemplate=f"<b>{html.escape(method)}</b> · epoch %{{x}}<br>{term} %{{customdata:.5g}}<extra></extra>",
        )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title="watched loss, first epoch = 1, least = 0", rangemode="tozero")
    return _laid_out(figure, 340)


def embeddings(pictures: pd.DataFrame, names: Mapping[str, str]) -> go.Figure:
    """Each method's codes of the same cells: colour is the content label, open markers were held out of training."""
    shown = list(pictures["job_id"].drop_duplicates())[:MAX_PICTURES]
    n_columns = min(3, len(shown))
    n_rows = -(-len(shown) // n_columns)
    titles = [_label(names[str(job_id)]) for job_id in shown]
    spaces = {"horizontal_spacing": 0.03, "vertical_spacing": 0.12 / n_rows}
    figure = make_subplots(rows=n_rows, cols=n_columns, subplot_titles=titles, **spaces)
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
            where = html.escape(f"{value} · {environment}" if label == "content" else str(value))
            figure.add_scatter(
                x=group["x"].to_numpy(np.float32),
                y=group["y"].to_numpy(np.float32),
                mode="markers",
                marker={"color": colour, "size": 5, "symbol": shape if trained else f"{shape}-open"},
                name=_label(value),
                legendgroup=str(value),
                showlegend=value not in named,
                hovertemplate=f"{where}{'' if trained else ' · held out'}<extra>{titles[k]}</extra>",
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
                f"{html.escape(str(unit))}<br>distance {x:.2f}, relative error {y:.3f}"
                for unit, x, y in zip(means.index, means[DISTANCE], errors, strict=True)
            ],
            mode="markers",
            name=_label(method),
            marker={"color": colour, "symbol": shape, "size": 8},
            hovertemplate=f"<b>{html.escape(str(method))}</b> · %{{text}}<extra></extra>",
        )
    figure.update_xaxes(title="distance of the held-out unit (1 = like training cells)", type="log", dtick="D1")
    _error_axis(figure.update_yaxes, edges, "relative error")
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
                name=_label(method),
                legendgroup=str(method),
                showlegend=k == 1,
                marker={"color": colour, "symbol": shape, "size": 8 if k == 1 else 5, "opacity": 1 if k == 1 else 0.6},
                hovertemplate=f"<b>{_label(method)}</b><br>{metric} %{{x:.2f}}, skill %{{y:.2f}}<extra></extra>",
                row=1,
                col=k,
            )
    for k, unit in enumerate(("rank in its task, −1 to 1", "deviation, in standard deviations"), 1):
        figure.update_xaxes(title=f"{metric}: {unit}", row=1, col=k)
        figure.update_yaxes(title="skill (−log relative error): the same", row=1, col=k)
    return _laid_out(figure, 380)


def cost(table: TaskTable, of: Mapping[str, Style]) -> go.Figure:
    """Relative error against the seconds of a fit.

    A dotted line joins the methods that no other beats in both, and a line of its colour a method trained with several
    numbers of steps.
    """
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
    for _, budgets in frame.groupby(frame["method"].str.replace(BUDGET, "", regex=True)):
        if len(budgets) > 1:
            figure.add_scatter(
                x=budgets["fit_seconds"],
                y=budgets["relative_error"].clip(*edges),
                mode="lines",
                line={"color": of[str(budgets["method"].iloc[0])][0], "width": 1},
                hoverinfo="skip",
                showlegend=False,
            )
    for row in frame.to_dict("records"):
        method = str(row["method"])
        colour, shape = of[method]
        figure.add_scatter(
            x=[row["fit_seconds"]],
            y=[_within(row["relative_error"], edges)],
            mode="markers+text" if method in set(best["method"]) else "markers",
            text=_label(method),
            textposition="top center",
            name=_label(method),
            marker={
                "color": colour,
                "symbol": _marker(row["relative_error"], shape, edges, ("down", "up")),
                "size": 10,
            },
            hovertemplate=(
                f"<b>{html.escape(method)}</b><br>%{{x:.3g}} s, relative error {_interval(row)}<extra></extra>"
            ),
        )
    figure.update_xaxes(title="seconds of a fit, median", type="log", dtick=1)
    _error_axis(figure.update_yaxes, edges, "relative error")
    return _laid_out(figure, 400)


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
            name=_label(method),
            line={"color": colour, "width": 1},
            marker={"color": colour, "symbol": shape, "size": 8},
            hovertemplate=f"<b>{_label(method)}</b> · %{{text}}<br>%{{x:.3g}} values, %{{y:.3g}} s<extra></extra>",
        )
    figure.update_xaxes(title="cells × genes of the training data", type="log")
    figure.update_yaxes(title="seconds of a job's fits, median", type="log")
    return _laid_out(figure, 360)


def _spread(number: int, most: int) -> NDArray[np.int_]:
    """Evenly spaced places from 0 to number − 1, at most ``most``, with both ends."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(int))


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


def _error_axis(update: Callable[..., object], edges: tuple[float, float], title: str) -> None:
    """Make an axis one of relative errors; ``update`` changes the axis."""
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)
    shown = [tick for tick in ticks if edges[0] <= tick <= edges[1]]
    update(title=title, type="log", range=[float(np.log10(edge)) for edge in edges])
    update(tickvals=shown, ticktext=[f"{tick:g}" for tick in shown])


def _bars(rows: Sequence[Mapping[str, float]], edges: tuple[float, float]) -> dict[str, object]:
    """Error bars from low to high; none where there is no interval."""
    ends = [{key: _within(row[key], edges) for key in ("relative_error", "low", "high")} for row in rows]
    above = [row["high"] - row["relative_error"] if np.isfinite(row["high"]) else 0.0 for row in ends]
    below = [row["relative_error"] - row["low"] if np.isfinite(row["low"]) else 0.0 for row in ends]
    return {
        "type": "data",
        "array": above,
        "arrayminus": below,
        "symmetric": False,
        "color": REFERENCE,
        "thickness": 1.5,
        "width": 3,
    }


def _interval(row: Mapping[str, float]) -> str:
    interval = f"[{row['low']:.3f}, {row['high']:.3f}]" if np.isfinite(row["low"]) else "(no interval)"
    return f"{row['relative_error']:.3f} {interval}"


def _within(value: float, edges: tuple[float, float]) -> float:
    return float(np.clip(value, *edges))


def _marker(error: float, shape: str, edges: tuple[float, float], ends: tuple[str, str] = ("left", "right")) -> str:
    """The marker of a value, or, where it is off the axis, an arrow at its end."""
    below, above = (f"arrow-bar-{end}-open" for end in ends)
    return below if error < edges[0] else above if error > edges[1] else shape


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
