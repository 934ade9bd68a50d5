"""Average ranks and their test, against Demsar 2006 and hand-worked tables."""

import numpy as np
import pytest
from scipy import stats

from cl.statistics.ranks import critical_difference, ranking

# Demsar 2006, table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets
AUC = """
.763 .768 .771 .798 | .599 .591 .590 .569 | .954 .971 .968 .967 | .628 .661 .654 .657 | .882 .888 .886 .898
.936 .931 .916 .931 | .661 .668 .609 .685 | .583 .583 .563 .625 | .775 .838 .866 .875 | 1.0 1.0 1.0 1.0
.940 .962 .965 .962 | .619 .666 .614 .669 | .972 .981 .9751 .975 | .957 .978 .946 .970
"""
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")


def demsar() -> dict[str, dict[tuple[str, int], float]]:
    rows = [[float(v) for v in row.split()] for row in AUC.replace("\n", "|").split("|") if row.strip()]
    assert len(rows) == 14
    return {name: {(f"set {i}", 0): row[j] for i, row in enumerate(rows)} for j, name in enumerate(NAMES)}


def test_the_example_of_the_paper():
    """Average ranks 3.143, 2.000, 2.893, 1.964; chi-square 9.28; critical difference 1.25."""
    found = ranking(demsar())
    assert found is not None
    assert found.names == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    np.testing.assert_allclose(found.ranks, [1.964, 2.000, 2.893, 3.143], atol=5e-4)
    assert (found.count, round(found.critical, 2)) == (14, 1.25)
    # ties: one row of four (4^3 - 4 = 60), three of two (6 each), out of 14 (4^3 - 4); the paper leaves them alone
    assert found.p == pytest.approx(float(stats.chi2.sf(9.28 / (1 - 78 / 840), 3)), abs=2e-4)
    # 3.143 - 1.964 = 1.18 < 1.25: by Nemenyi's test nothing differs, as the paper says
    assert found.groups == ((0, 3),)


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_values_of_table_5(k: int, q: float):
    assert critical_difference(k, 1) / np.sqrt(k * (k + 1) / 6) == pytest.approx(q, abs=1e-3)


def test_lower_can_be_better_and_only_shared_pairs_count():
    values = {
        "a": {("s", 0): 0.1, ("s", 1): 0.1, ("s", 2): 0.9},
        "b": {("s", 0): 0.2, ("s", 1): 0.3, ("s", 2): float("nan")},
        "c": {("s", 0): 0.3, ("s", 1): 0.2, ("t", 0): 0.0},
    }
    found = ranking(values, better="lower")
    assert found is not None
    assert (found.names, found.ranks.tolist(), found.count) == (("a", "b", "c"), [1.0, 2.5, 2.5], 2)


def test_ties_everywhere_and_too_little_to_rank():
    same = {name: {("s", seed): 0.5 for seed in range(4)} for name in "abc"}
    found = ranking(same)
    assert found is not None
    assert np.isnan(found.p)
    assert found.ranks.tolist() == [2.0, 2.0, 2.0]
    assert ranking({name: same[name] for name in "ab"}) is None
    assert ranking({name: {("s", 0): 0.5} for name in "abc"}) is None
    assert ranking({}) is None
