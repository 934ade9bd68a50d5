"""Metrics of language modelling: bits per character b(k, j) on the text of task j after task k, k = 0 before training.

They are the metrics of the accuracy matrix, taken of b. Only streams whose every step asks for the next character have
them; where these are read in bytes, bits per byte.
"""

from cl.metrics.base import Array, metric
from cl.metrics.matrix import average_accuracy, learning_accuracy, loss_gained

UNIT = "bits per character"


@metric(
    better="lower",
    meaning="Mean loss on the texts learned so far, at the end of the run.",
    source="Graves 2013 (arXiv 1308.0850), section 3",
    unit=UNIT,
)
def bits_per_character(bits: Array) -> Array:
    """Bits per character, (S,): (1/T) sum_j b(T, j), the loss in nats over ln 2.

    Args:
        bits: (S, K+1, K).

    >>> import numpy as np
    >>> B = np.array([[[6.0, 6.0], [2.0, 4.0], [3.5, 2.5]]])
    >>> bits_per_character(B).tolist()  # (3.5 + 2.5) / 2
    [3.0]
    """
    return average_accuracy(bits)


@metric(
    better="lower",
    meaning="Bits per character at the end of the run minus those right after the text was learned; positive means "
    "forgotten.",
    source="the terms of Lopez-Paz and Ranzato 2017, equation 3, for a loss",
    unit=UNIT,
)
def bits_lost(bits: Array) -> Array:
    """Bits lost of each task but the last, (S, K): b(T, j) - b(j, j); NaN for the last and for tasks not reached.

    >>> import numpy as np
    >>> B = np.array([[[6.0, 6.0], [2.0, 4.0], [3.5, 2.5]]])
    >>> bits_lost(B).tolist()  # 3.5 - 2
    [[1.5, nan]]
    """
    return loss_gained(bits)


@metric(
    better="lower",
    meaning="Mean bits per character on each text right after it was learned, whatever is forgotten.",
    source="as learning accuracy, Riemer et al. 2019 (MER), section 5, for a loss",
    unit=UNIT,
)
def bits_learned(bits: Array) -> Array:
    """Bits per character right after learning, (S,): (1/T) sum_j b(j, j).

    >>> import numpy as np
    >>> B = np.array([[[6.0, 6.0], [2.0, 4.0], [3.5, 2.5]]])
    >>> bits_learned(B).tolist()  # (2 + 2.5) / 2
    [2.25]
    """
    return learning_accuracy(bits)
