import pytest

from ablations.planning.cells import choose_shard, expand_cells, filter_cells
from tiekd.errors import UserError

METHODS = {
    "baseline": {"loss.name": "si", "loss.target": "ground_truth"},
    "tie-kd": {"loss.name": "tie_kd", "loss.alpha": 0.3},
}


def settings_of(cells, *paths):
    """Return the values at dotted paths, one tuple per cell."""

    def value(config, path):
        for name in path.split("."):
            config = getattr(config, name)
        return config

    return [tuple(value(cell.config, path) for path in paths) for cell in cells]


def test_study_without_factors_has_one_cell_per_seed(study):
    cells = expand_cells(study(seeds=[3, 5]))
    assert settings_of(cells, "seed", "loss.name") == [(3, "si"), (5, "si")]
    assert [str(cell) for cell in cells] == ["seed=3", "seed=5"]


def test_grid_has_every_combination_once_per_seed(study):
    cells = expand_cells(study(factors={"loss.name": ["si", "mse"], "bins.n_bins": [8, 16, 32]}, seeds=[0, 1]))
    expected = [(loss, bins, seed) for loss in ("si", "mse") for bins in (8, 16, 32) for seed in (0, 1)]
    assert settings_of(cells, "loss.name", "bins.n_bins", "seed") == expected
    assert cells[0].factors == {"loss.name": "si", "bins.n_bins": 8}
    assert str(cells[-1]) == "loss.name=mse, bins.n_bins=32, seed=1"


def test_shards_divide_the_cells(study):
    cells = expand_cells(study(seeds=list(range(7))))
    shards = [choose_shard(cells, f"{number}/3") for number in (1, 2, 3)]
    assert [cell.config.seed for cell in shards[0]] == [0, 3, 6]
    assert sorted(cell.config.seed for shard in shards for cell in shard) == list(range(7))
    assert choose_shard(cells, None) == cells


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1/8", "1", "-1/2", "1/2/3", "a/b", ""])
def test_a_shard_that_does_not_exist_is_refused(study, shard):
    with pytest.raises(UserError, match=rf"^--shard {shard}: expected I/N with 1 <= I <= N <= 7, the number of cells$"):
        choose_shard(expand_cells(study(seeds=list(range(7)))), shard)


def test_one_at_a_time_keeps_other_factors_at_the_base(study):
    cells = expand_cells(study(vary="one_at_a_time", factors={"loss.si_weight": [2.0, 3.0], "bins.n_bins": [8, 32]}))
    assert settings_of(cells, "loss.si_weight", "bins.n_bins") == [(1.0, 16), (2.0, 16), (3.0, 16), (1.0, 8), (1.0, 32)]
    assert [cell.factors for cell in cells][:2] == [{}, {"loss.si_weight": 2.0}]


def test_named_level_sets_several_settings(study):
    cells = expand_cells(study(factors={"method": METHODS}))
    expected = [("si", "ground_truth", 0.1), ("tie_kd", "teacher", 0.3)]
    assert settings_of(cells, "loss.name", "loss.target", "loss.alpha") == expected
    assert [cell.factors for cell in cells] == [{"method": "baseline"}, {"method": "tie-kd"}]


def test_cells_are_the_union_of_the_blocks(study):
    cells = expand_cells(study(factors=[{"loss.name": ["si", "mse"]}, {"bins.n_bins": [8], "method": METHODS}]))
    assert settings_of(cells, "loss.name", "bins.n_bins") == [("si", 16), ("mse", 16), ("si", 8), ("tie_kd", 8)]


def test_defaults_follow_the_level_and_not_the_base(study, tiny):
    cells = expand_cells(
        study(base=tiny | {"student": {}}, factors={"student.name": ["tiny", "small"], "loss.name": ["si", "l_dpm"]})
    )
    found = settings_of(cells, "student.encoder", "student.head")
    assert found == [(e, h) for e in ("test_efficientnet", "test_resnet") for h in ("regression", "dpm")]


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"method": METHODS, "loss.name": ["si"]}, r"factors method and loss.name contradict: both set loss.name"),
        ({"a": {"x": {"loss.sigma": 1}}, "b": {"y": {"loss.sigma": 2}}}, r"factors a and b contradict: both set loss.sigma"),
        ({"loss.name": ["si", "mse", "si"]}, r"factor loss.name: must not repeat a level, got \['si', 'mse', 'si'\]"),
        ({"loss.name": []}, r"factor loss.name has no levels"),
        ({"method": {}}, r"factor method has no levels"),
        ({"loss.name": ["si", "tie_dk"]}, r"cell loss.name=tie_dk: loss.name: unknown 'tie_dk'; did you mean tie_kd\?"),
        ({"loss.temperatur": [1]}, r"cell loss.temperatur=1: loss.temperatur: no such setting: .*did you mean temperature\?"),
        ({"m": {"a": {"los.sigma": 1}}}, r"cell m=a: los: no such setting: unknown 'los'; did you mean loss\?"),
        ({"loss.scale": [1, -1]}, r"cell loss.scale=-1: loss.scale: input should be greater than 0, got -1"),
        (
            {"student.head": ["dpm", "regression"], "loss.name": ["si", "l_dpm"]},
            r"cell student.head=regression, loss.name=l_dpm: loss.name: 'l_dpm' needs student.head 'dpm', got 'regression'",
        ),
        (
            {"loss.target": ["ground_truth"], "loss.name": ["si", "ssim"]},
            r"cell loss.target=ground_truth, loss.name=ssim: loss.target: loss 'ssim' needs a dense target",
        ),
    ],
)
def test_contradicting_settings_name_the_cell(study, factors, message):
    with pytest.raises(UserError, match=message) as caught:
        expand_cells(study(factors=factors))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("study demo")


def test_empty_list_of_factors_is_refused(study):
    with pytest.raises(UserError, match="study demo: has no cells"):
        expand_cells(study(factors=[]))


@pytest.fixture
def cells(study):
    return expand_cells(study(factors={"method": METHODS, "bins.n_bins": [8, 16]}, seeds=[0, 1]))


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ([], 8),
        (["method=tie-kd"], 4),  # a factor has precedence over the label of the same name
        (["loss=si"], 4),
        (["bins.n_bins=8"], 4),
        (["teacher="], 4),  # the baseline has no teacher
        (["seed=1", "loss=tie_kd"], 2),
        (["loss=si", "bins.n_bins=16", "seed=0"], 1),
    ],
)
def test_filter_cells_keeps_cells_that_match_every_filter(cells, filters, count):
    kept = filter_cells(cells, filters)
    assert len(kept) == count
    assert all(cell.filter_values[text.partition("=")[0]] == text.partition("=")[2] for cell in kept for text in filters)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method", "expected name=value, where name is one of backbone, bins.n_bins, dataset, loss, method, seed, teacher"),
        ("loss.nam=si", "expected name=value, where name is one of backbone, bins.n_bins"),
        ("method=tiekd", "no such cell; method is one of baseline, tie-kd"),
        ("seed=2", "no such cell; seed is one of 0, 1"),
    ],
)
def test_filter_without_a_match_lists_valid_values(cells, text, message):
    with pytest.raises(UserError, match=f"--only '{text}': {message}"):
        filter_cells(cells, [text])
