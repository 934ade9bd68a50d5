"""The contract, as checks that any strategy can be held to: ours and yours.

`check_strategy` plays the part that `check_estimator` plays in scikit-learn.

>>> from cl.testing import check_strategy
>>> from strategies.naive import Naive
>>> check_strategy(Naive)
"""

from cl.testing.checks import check_strategy, checks
from cl.testing.tiny import TinyStream, train

__all__ = ["TinyStream", "check_strategy", "checks", "train"]
