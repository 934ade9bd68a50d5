"""Sources: the data sets that streams are cut from."""

from cl.streams.sources.base import Samples, Source, Table
from cl.streams.sources.combined import Several, Wrapped
from cl.streams.sources.digits import Digits
from cl.streams.sources.folder import ImageFolder, Omniglot
from cl.streams.sources.idx import EMNIST, KMNIST, MNIST, FashionMNIST
from cl.streams.sources.sequential import AsSequence
from cl.streams.sources.vision import CIFAR10, CIFAR100, SVHN

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "SVHN",
    "AsSequence",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "Omniglot",
    "Samples",
    "Several",
    "Source",
    "Table",
    "Wrapped",
]
