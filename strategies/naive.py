"""Fine-tuning: each task is trained with no protection at all; the lower bound every method is measured against."""

from typing import Any, ClassVar

from cl.strategy import Strategy


class Naive(Strategy):
    """Plain fine-tuning, one task after another."""

    neutral: ClassVar[dict[str, Any]] = {}
