from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from activations.errors import TwinprobeError
from activations.models import LoadedModel, ModelSpec, load_model
from activations.store import ActivationStore
from activations.texts import Text
from analyses.across.similarity import RANGES, cka, cosine, hsic, jackknife, procrustes, similarity_table
from analyses.study.neutral import capture_neutral, neutral_texts

if TYPE_CHECKING:
    from conftest import MakeModel

Array = NDArray[np.float64]
Parts = list[tuple[Array, Array]]
SITES = ("embed", "resid_post.1", "resid_post.5")


def _related(n: int, a: int = 6, b: int = 4, seed: int = 0) -> tuple[Array, Array]:
    """Rows whose spaces share something, off the origin and with unequal variances."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, a)) * np.arange(1, a + 1) + 3.0
    return x, x @ rng.normal(size=(a, b)) + 4.0 * rng.normal(size=(n, b)) - 2.0


def _parts(x: Array, y: Array, sizes: Sequence[int]) -> Parts:
    cuts = np.cumsum(sizes)[:-1]
    return list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))


def _cka(parts: Parts) -> Array:
    return cka(hsic(parts), hsic([(x, x) for x, _ in parts]), hsic([(y, y) for _, y in parts]))


def _song(x: Array, y: Array) -> float:
    """Unbiased HSIC as Song et al. 2012 write it, from kernel matrices."""
    n = len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(l, 0.0)
    one = np.ones(n)
    first = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return float(first - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def _u_centred(x: Array) -> Array:
    """The kernel matrix, U-centred as in Székely & Rizzo 2014."""
    n, k = len(x), x @ x.T
    np.fill_diagonal(k, 0.0)
    sums = k.sum(axis=0)
    centred: Array = k - (sums[:, None] + sums[None, :]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0.0)
    return centred


def _biased_cka(x: Array, y: Array) -> float:
    """Kornblith et al. 2019, from centred features."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return float(np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def test_hsic_is_that_of_the_kernel_matrices() -> None:
    x, y = _related(30)
    found = hsic([(x, y)])[0]
    assert found == pytest.approx(_song(x, y), rel=1e-10)
    assert found == pytest.approx(float(np.sum(_u_centred(x) * _u_centred(y))) / (30 * 27), rel=1e-10)


def test_cka_is_the_cosine_of_u_centred_kernels() -> None:
    x, y = _related(25)
    k, l = _u_centred(x), _u_centred(y)  # noqa: E741
    expected = float(np.sum(k * l)) / float(np.linalg.norm(k) * np.linalg.norm(l))
    assert _cka([(x, y)])[0] == pytest.approx(expected, rel=1e-10)
    assert 0.1 < expected < 0.9


def test_procrustes_is_what_the_best_turn_leaves() -> None:
    x, y = _related(40)
    x, y = x - x.mean(axis=0), np.hstack([y - y.mean(axis=0), np.zeros((40, 2))])  # the narrower, padded with zeros
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    turn, _ = orthogonal_procrustes(x, y)
    expected = float(np.linalg.norm(x @ turn - y) ** 2)
    assert procrustes([_related(40)])[0] == pytest.approx(expected, rel=1e-10)
    assert 0.1 < expected < 1.9


def test_cosine_by_hand() -> None:
    x = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    y = np.array([[3.0, 3.0], [0.0, 5.0], [1.0, 1.0]])
    assert cosine([(x, y)])[0] == pytest.approx((np.sqrt(0.5) + 1.0 + 0.0) / 3)
    shifted = [(x + 1000.0, y - 1000.0)]
    assert cosine(shifted)[0] == pytest.approx(-1.0, abs=1e-4)
    assert cosine(shifted, centred=True)[0] == pytest.approx(cosine([(x, y)], centred=True)[0], abs=1e-10)


MEASURES: dict[str, Callable[[Parts], Array]] = {
    "hsic": hsic,
    "cka": _cka,
    "procrustes": procrustes,
    "cosine": cosine,
    "centred": lambda parts: cosine(parts, centred=True),
}


@pytest.mark.parametrize("name", MEASURES)
def test_documents_add_up_to_the_whole_in_any_order(name: str) -> None:
    x, y = _related(60, 5, 5)
    parts = _parts(x, y, [1, 20, 7, 2, 30])
    whole = MEASURES[name]([(x, y)])[0]
    assert MEASURES[name](parts)[0] == pytest.approx(whole, rel=1e-11)
    assert MEASURES[name](parts[::-1])[0] == pytest.approx(whole, rel=1e-11)
    rows = np.random.default_rng(0).permutation(60)
    assert MEASURES[name]([(x[rows], y[rows])])[0] == pytest.approx(whole, rel=1e-11)


@pytest.mark.parametrize("name", ["hsic", "cka", "cosine"])
def test_leaving_a_document_out_is_computing_without_it(name: str) -> None:
    parts = _parts(*_related(60, 5, 5), [12, 20, 7, 11, 10])
    expected = [MEASURES[name](parts[:number] + parts[number + 1 :])[0] for number in range(5)]
    np.testing.assert_allclose(MEASURES[name](parts)[1:], expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["procrustes", "centred"])
def test_what_is_held_when_a_document_is_left_out_hardly_matters(name: str) -> None:
    """The turn, or the means: the interval is that of fitting them anew, within a few percent."""
    parts = _parts(*_related(600, 5, 5), [20] * 30)
    anew = np.array([MEASURES[name](parts[:number] + parts[number + 1 :])[0] for number in range(30)])
    assert np.std(MEASURES[name](parts)[1:]) == pytest.approx(np.std(anew), rel=0.05)


@pytest.mark.parametrize("measure", [_cka, procrustes])
def test_turns_scales_and_shifts_do_not_matter(measure: Callable[[Parts], Array]) -> None:
    x, y = _related(50)
    turns = [ortho_group.rvs(width, random_state=1) for width in (6, 4)]
    moved = [(0.01 * x @ turns[0] + 40.0, 300.0 * y @ turns[1] - 7.0)]
    assert measure(moved)[0] == pytest.approx(measure([(x, y)])[0], rel=1e-9)
    assert measure([(y, x)])[0] == pytest.approx(measure([(x, y)])[0], rel=1e-9)
    stretched = x * np.array([9.0, 1, 1, 1, 1, 1])
    assert abs(measure([(stretched, y)])[0] - measure([(x, y)])[0]) > 0.01


@pytest.mark.parametrize("measure", [_cka, procrustes])
def test_rows_far_from_the_origin_lose_no_digits(measure: Callable[[Parts], Array]) -> None:
    """Activations have dimensions whose mean is thousands of times their spread."""
    x, y = _related(50)
    far = _parts(x + 2.0**20, y - 2.0**20, [10] * 5)
    assert measure(far)[0] == pytest.approx(measure([(x, y)])[0], rel=1e-8)


def test_unrelated_rows_have_no_cka_unless_it_is_biased() -> None:
    rng = np.random.default_rng(0)
    draws = [(rng.normal(size=(40, 30)), rng.normal(size=(40, 30))) for _ in range(100)]
    unbiased = [_cka([draw])[0] for draw in draws]
    assert abs(np.mean(unbiased)) < 3 * np.std(unbiased) / 10
    assert np.std(unbiased) < 0.05
    assert np.mean([_biased_cka(*draw) for draw in draws]) > 0.4


def test_the_biased_form_is_met_with_many_rows() -> None:
    x, y = _related(20_000)
    assert _cka([(x, y)])[0] == pytest.approx(_biased_cka(x, y), abs=1e-3)


@given(n=st.integers(5, 30), a=st.integers(1, 6), b=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_values_stay_in_range(n: int, a: int, b: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_cauchy(size=(n, a)), rng.standard_cauchy(size=(n, b))
    parts = _parts(x, y, [2, n - 4, 2])
    # The unbiased estimate may fall far below 0 with few rows; Cauchy-Schwarz holds for it on both sides.
    assert -1 - 1e-9 <= _cka([(x, y)])[0] <= 1 + 1e-9
    assert _cka([(x, x)])[0] == pytest.approx(1.0, abs=1e-9)
    assert -1e-9 <= procrustes(parts)[0] <= 2 + 1e-9
    assert procrustes([(x, x)])[0] == pytest.approx(0.0, abs=1e-9)
    z = rng.standard_cauchy(size=(n, a))
    assert -1 - 1e-9 <= cosine([(x, z)])[0] <= 1 + 1e-9
    xy, yz, xz = (np.sqrt(max(0.0, procrustes([pair])[0])) for pair in ((x, y), (y, z), (x, z)))
    assert xz <= xy + yz + 1e-6  # its root is a metric


def test_a_space_that_does_not_vary_has_no_similarity() -> None:
    x, _ = _related(20)
    parts = _parts(x, np.full((20, 3), 0.1), [7, 7, 6])
    assert np.isnan(_cka(parts)).all() and np.isnan(procrustes(parts)).all()
    assert _cka(parts).shape == procrustes(parts).shape == (4,)


def test_the_interval_of_equal_documents_is_that_of_a_mean() -> None:
    x, y = _related(80, 5, 5)
    interval = jackknife(cosine(_parts(x, y, [10] * 8)), -1.0, 1.0)
    cosines = np.sum(x * y, axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    means = cosines.reshape(8, 10).mean(axis=1)
    reach = 2.364624 * means.std(ddof=1) / np.sqrt(8)  # Student's t with 7 degrees of freedom
    assert interval.estimate == pytest.approx(cosines.mean())
    assert [interval.low, interval.high] == pytest.approx([cosines.mean() - reach, cosines.mean() + reach])


def test_one_document_has_no_interval_and_bounds_stay_in_range() -> None:
    alone = jackknife(cosine([_related(20, 5, 5)]), -1.0, 1.0)
    assert np.isnan([alone.low, alone.high]).all() and np.isfinite(alone.estimate)
    wide = jackknife(np.array([0.9, 0.5, 0.95, 1.0]), -1.0, 1.0)
    assert wide.high == 1.0 and -1.0 <= wide.low < 0.5


def test_intervals_cover_the_truth() -> None:
    """Documents with rows that depend on each other; the covariances, and so the true values, are known."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 3))
    own, shared, between = 1.49 * np.eye(4), 1.49 * weights, 1.49 * (weights.T @ weights + np.eye(3))
    truth = {
        _cka: np.sum(shared**2) / np.linalg.norm(own) / np.linalg.norm(between),
        procrustes: 2 - 2 * np.linalg.norm(shared, "nuc") / np.sqrt(np.trace(own) * np.trace(between)),
    }
    hits = dict.fromkeys(truth, 0)
    for _ in range(100):
        parts = []
        for _ in range(30):
            x, y = (0.7 * rng.normal(size=width) + rng.normal(size=(10, width)) for width in (4, 3))
            parts.append((x, x @ weights + y))
        for measure, value in truth.items():
            interval = jackknife(measure(parts), -1.0, 2.0)
            hits[measure] += interval.low <= value <= interval.high
    assert all(88 <= count <= 100 for count in hits.values()), hits


def test_drawing_documents_with_replacement_would_miss_the_truth() -> None:
    """Why there is no bootstrap: of unrelated rows, nearly every resample lies on one side of the estimate."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 8)), rng.normal(size=(200, 8))
    parts = _parts(x, y, [10] * 20)
    resamples = [[parts[number] for number in rng.integers(20, size=20)] for _ in range(100)]
    assert np.mean([_cka(drawn)[0] > _cka(parts)[0] for drawn in resamples]) > 0.95
    assert np.mean([procrustes(drawn)[0] < procrustes(parts)[0] for drawn in resamples]) > 0.95
    interval = jackknife(_cka(parts), -1.0, 1.0)
    assert interval.low < 0 < interval.high


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "there are no documents"),
        ([(np.ones((3, 2)), np.ones((4, 2)))], r"document 1 has rows \(3, 2\) and \(4, 2\); expected \[n, a\]"),
        ([(np.ones((3, 2)), np.ones((3, 2))), (np.ones(3), np.ones(3))], r"document 2 has rows \(3,\)"),
        ([(np.full((4, 2), np.inf), np.ones((4, 2)))], "document 1 has rows that are not finite"),
    ],
)
@pytest.mark.parametrize("measure", [hsic, procrustes, cosine])
def test_rows_that_can_not_be_compared(measure: Callable[[Parts], Array], parts: Parts, message: str) -> None:
    with pytest.raises(TwinprobeError, match=message):
        measure(parts)


def test_a_cosine_needs_one_width() -> None:
    with pytest.raises(TwinprobeError, match="rows are 6 and 4 wide"):
        cosine([_related(10)])


def _capture(model: LoadedModel, texts: Sequence[Text], out: Path, sites: Sequence[str] = SITES) -> ActivationStore:
    return capture_neutral(
        model, texts, out, bos=True, sites=",".join(sites), dtype="float32", progress=lambda done, total: None
    )


@pytest.fixture(scope="module")
def texts() -> list[Text]:
    return neutral_texts([], count=12, characters=200, seed=1)


@pytest.fixture(scope="module")
def stores(texts: list[Text], tmp_path_factory: pytest.TempPathFactory) -> dict[str, ActivationStore]:
    specs = {
        "base": ModelSpec("embedded:text"),
        "second_seed": ModelSpec("embedded:text-seed2"),
        "random": ModelSpec("embedded:text", random_init=7),
    }
    return {role: _capture(load_model(spec), texts, tmp_path_factory.mktemp(role)) for role, spec in specs.items()}


@pytest.fixture(scope="module")
def table(stores: dict[str, ActivationStore]) -> pd.DataFrame:
    return similarity_table(stores, [("base", "base"), ("base", "second_seed"), ("base", "random")], SITES)


def test_a_line_for_every_place_and_measure(table: pd.DataFrame, stores: dict[str, ActivationStore]) -> None:
    places = ["model_a", "model_b", "kind", "site_a", "site_b", "measure"]
    assert list(table) == [*places, "value", "low", "high", "n", "n_documents", "n_unpaired"]
    assert len(table) == len(table.drop_duplicates(places)) == 3 * 2 * len(SITES) * len(RANGES)
    assert set(table.kind) == {"code", "prose"} and (table.site_a == table.site_b).all()
    assert (table.n_documents == 12).all()
    assert ((table.low <= table.value) & (table.value <= table.high)).all()
    once = table[(table.model_b == "base") & (table.site_a == "embed") & (table.measure == "cka")]
    assert 2 * once.n.sum() + once.n_unpaired.sum() == 2 * stores["base"].n_rows


def test_a_model_is_itself_and_closer_to_its_second_seed_than_to_a_random_one(table: pd.DataFrame) -> None:
    def of(role: str, measure: str) -> pd.DataFrame:
        return table[(table.model_b == role) & (table.measure == measure)].reset_index(drop=True)

    for measure in RANGES:
        perfect = 0.0 if measure == "procrustes" else 1.0
        for column in ("value", "low", "high"):
            np.testing.assert_allclose(of("base", measure)[column], perfect, atol=1e-9)
    ceiling, floor = of("second_seed", "cka"), of("random", "cka")
    assert (ceiling.low > floor.high).all() and (ceiling.value < 1).all()
    assert (of("second_seed", "procrustes").high < of("random", "procrustes").low).all()


def test_a_kind_holds_its_own_rows(table: pd.DataFrame, stores: dict[str, ActivationStore]) -> None:
    base, other = stores["base"], stores["second_seed"]
    rows = np.flatnonzero(base.rows.group.str.startswith("code/"))
    x, y = (store.read("resid_post.1", rows).astype(np.float64) for store in (base, other))
    line = table.query("model_b == 'second_seed' and kind == 'code' and site_a == 'resid_post.1' and measure == 'cka'")
    assert line.value.item() == pytest.approx(_cka([(x, y)])[0], rel=1e-9)


def test_every_site_pair_for_a_map(table: pd.DataFrame, stores: dict[str, ActivationStore]) -> None:
    found = similarity_table(stores, [("base", "random")], SITES, every_site_pair=True)
    crossed = found[found.site_a != found.site_b]
    assert set(crossed.measure) == {"cka"} and len(crossed) == 2 * len(SITES) * (len(SITES) - 1)
    same = found[found.site_a == found.site_b].reset_index(drop=True)
    expected = table[table.model_b == "random"].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, expected)


def test_models_of_other_widths_and_tokens(
    make_model: MakeModel, texts: list[Text], stores: dict[str, ActivationStore], tmp_path: Path
) -> None:
    narrow = _capture(make_model("gpt2"), texts, tmp_path / "narrow", ["embed", "resid_post.1"])
    found = similarity_table({**stores, "narrow": narrow}, [("base", "narrow")], ["embed", "resid_post.1"])
    assert set(found.measure) == {"cka", "procrustes"}
    assert (found.n_unpaired > 0).all() and found.value.notna().all()
    counts = found.drop_duplicates("kind")
    assert 2 * counts.n.sum() + counts.n_unpaired.sum() == stores["base"].n_rows + narrow.n_rows


def test_what_can_not_be_compared(make_model: MakeModel, stores: dict[str, ActivationStore], tmp_path: Path) -> None:
    with pytest.raises(TwinprobeError, match="no store for code; there are stores for base, second_seed, random"):
        similarity_table(stores, [("base", "code")], SITES)
    with pytest.raises(TwinprobeError, match="no site 'resid_post.4'"):
        similarity_table(stores, [("base", "random")], ["resid_post.4"])
    plain = _capture(make_model("gpt2"), [Text("a", "x = 1"), Text("b", "y = 2")], tmp_path / "plain", ["embed"])
    with pytest.raises(TwinprobeError, match="group 'a'; expected KIND/DOCUMENT"):
        similarity_table({"base": plain}, [("base", "base")], ["embed"])
