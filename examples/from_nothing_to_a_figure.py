"""From nothing to a figure: methods on a task, the rows, the leaderboard, one picture.

Run it as a script from the checkout, ``.venv/bin/python examples/from_nothing_to_a_figure.py``, or cell by cell
(``# %%``) in an editor or notebook. Results go to ``runs/example``, the figure to ``figure.png``; a second time nothing
is fitted again.
"""

# %% The question: does a code survive when a cancer was never seen?
import bench

METHODS = ["random-projection", "pca", "vae"]
TASK = "reembedding/pancancer-sim"

# %% Run. `preset="default"` is what a conclusion is drawn from; `smoke` shows within a minute that everything works.
rows = bench.run(METHODS, TASK, preset="smoke", settings={"vae": {"n_latent": 5}}, out="runs/example")

# %% One row for each job (method, held-out cancer, seed) and metric. Jobs that fail are rows as well.
primary = rows[rows["primary"]]
print(primary.pivot_table(index="method", columns=["metric", "unit"], values="value").round(3))

# %% The leaderboard: a method's error divided by that of the best simple method, with intervals over draws.
tables = bench.leaderboard(rows)
board = tables.tasks.set_index("method").sort_values("relative_error")
print(board[["relative_error", "low", "high", "verdict", "coverage"]].round(2))
for note in tables.notes:
    print("note:", note)

# %% The figure: each method's relative error, and the best simple method as a line.
import matplotlib as mpl  # noqa: E402

mpl.use("Agg")  # a file, no window
import matplotlib.pyplot as plt  # noqa: E402

methods = board[board["role"] == "method"]
figure, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
axes.hlines(methods.index, methods["low"], methods["high"], color="0.7", linewidth=4)
axes.plot(methods["relative_error"], methods.index, "o", color="black")
axes.axvline(1, linestyle="--", color="tab:blue", label="the best simple method")
axes.set(xlabel="relative error", xscale="log", title=TASK)
axes.margins(y=0.3)
figure.legend(loc="outside lower center", frameon=False)
figure.savefig("figure.png", dpi=150)
