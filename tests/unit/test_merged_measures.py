"""What several measures found, under one roof."""

import warnings

import numpy as np
import pytest

from cl.measures.base import Measure, Quantity, merged


class Finds(Measure):
    def __init__(self, **found):
        super().__init__(None)
        self.found = found

    def result(self):
        return {
            n: Quantity(np.array([v]), ("task trained",), "A number.", "", "no paper") for n, v in self.found.items()
        }


def values(measures):
    return {name: quantity["values"] for name, quantity in merged(measures).items()}


def test_quantities_of_one_name_are_all_kept():
    with pytest.warns(UserWarning, match="two measures found a `drift`; that of Finds is drift_2"):
        found = values([Finds(drift=1.0, ece=2.0), Finds(drift=3.0), Finds(drift=4.0, drift_2=5.0)])
    assert found == {"drift": [1.0], "ece": [2.0], "drift_2": [3.0], "drift_3": [4.0], "drift_2_2": [5.0]}


def test_other_names_are_left_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values([Finds(a=1.0), Finds(b=2.0)]) == {"a": [1.0], "b": [2.0]}
