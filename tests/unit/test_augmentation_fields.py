"""The fields of an augmentation are checked like those of everything else: by type, in one line."""

import pytest

from cl.errors import ConfigError
from cl.streams.transforms import Augmentation, augmentation_of


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("flip", "no", "true or false"),
        ("flip", "maybe", "true or false"),
        ("flip", 1, "true or false"),
        ("crop", 2.5, "a whole number"),
        ("crop", True, "a whole number"),
        ("crop", "4", "a whole number"),
        ("brightness", "0.5", "a number"),
        ("contrast", None, "a number"),
        ("saturation", False, "a number"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(field, value, kind):
    with pytest.raises(ConfigError) as refused:
        augmentation_of({field: value})
    assert str(refused.value) == f"Expected `stream.augmentation.{field}` {kind}, got {value!r}"


def test_right_values_are_kept():
    spec = {"crop": 2, "flip": False, "brightness": 1, "contrast": 0.25}
    assert augmentation_of(spec) == Augmentation(2, False, 1, 0.25)
    assert augmentation_of(None) is None
