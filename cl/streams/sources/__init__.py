"""Sources: the data sets that streams are cut from."""

from cl.streams.sources.base import Samples, Source, Table
from cl.streams.sources.digits import Digits
from cl.streams.sources.idx import EMNIST, KMNIST, MNIST, FashionMNIST

__all__ = ["EMNIST", "KMNIST", "MNIST", "Digits", "FashionMNIST", "Samples", "Source", "Table"]
