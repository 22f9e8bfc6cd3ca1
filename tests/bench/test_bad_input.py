"""Whatever is wrong with a command is said at once, with exit code 2, and nothing is run."""

import pytest

RUN = ("run", "--methods", "pca", "--tasks", "reembedding/pancancer-sim", "--preset", "smoke")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--methods", "pcaa", "--tasks", "ood"), "unknown method 'pcaa'; did you mean 'pca'"),
        (("run", "--methods", "pca", "--tasks", "reembeding"), "unknown task 'reembeding'; did you mean"),
        (("run", "--preset", "huge"), "'huge' is not one of 'smoke', 'default', 'paper'"),
        ((*RUN, "--set", "pca.n_latnt=3"), "pca has no config key 'n_latnt'; it has shift, n_latent"),
        ((*RUN, "--set", "pca.n_latent=many"), "pca.n_latent='many': a int is needed"),
        ((*RUN, "--seeds", "0"), "Input should be greater than or equal to 1"),
        ((*RUN, "--data-dir", "nowhere"), "there is no such directory"),
        ((*RUN, "--plugin", "nowhere.py"), "there is no file"),
        (("show", "knn_recal"), "did you mean 'knn_recall'"),
        (("data", "fetch", "kangg"), "unknown data set 'kangg'; did you mean 'kang'"),
        (("data", "fetch", "ifn-sim"), "ifn-sim is embedded"),
        (("leaderboard", "--out", "nowhere"), "no results there"),
        (("list", "metricks"), "'metricks' is not one of"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(inside, tmp_path, arguments, message):
    done = inside(*arguments)
    assert done.returncode == 2, done.stderr
    said = " ".join(done.stderr.replace("│", " ").split())
    assert message in said
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "results.parquet").exists()


def test_a_plugin_that_raises_shows_its_traceback_and_nothing_is_run(inside, plugin, tmp_path):
    file = plugin("x = 1\ny = x / 0\n")
    done = inside(*RUN, "--plugin", file)
    assert done.returncode == 2
    assert f'File "{file}", line 2' in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "nothing was run" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_out_directory_that_cannot_be_written_is_said_at_once(inside, tmp_path):
    (tmp_path / "file").write_text("")
    done = inside(*RUN, "--out", "file/out")
    assert done.returncode == 2
    assert "not writable" in done.stderr


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data.obs.drop(columns="cell_type", inplace=True), "cell_type"),
        (lambda data: data.X.__setitem__((0, 0), float("nan")), "NaN"),
        (lambda data: data.layers["counts"].__setitem__((0, 0), -1), "negative"),
        (lambda data: setattr(data, "var_names", ["gene0", *data.var_names[:-1]]), "gene0"),
        (lambda data: data._inplace_subset_obs(data.obs_names[:0]), "no cells"),
        (lambda data: data.obs.__setitem__("cell_type", " "), "'cell_type'. is empty"),
    ],
)
def test_bad_data_are_named_before_any_fit(spoil, message):
    from tasks.datasets import DataError
    from tasks.datasets.memory import Memory
    from tasks.simulate.ifn import IFN
    from tasks.unseen_cell_type import UnseenCellType

    data = IFN.make("smoke")
    memory = Memory(data, "my.h5ad")
    spoil(data)
    with pytest.raises(DataError, match=message) as raised:
        UnseenCellType(memory, "smoke").units()
    assert str(raised.value).startswith("my.h5ad: ")
