"""Variational autoencoder: the generator of generative replay and of the generative classifier."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.errors import expect
from cl.learners.cells import GRUCell
from cl.objectives import full
from cl.seeding import normal
from cl.streams.base import StreamInfo

LIKELIHOODS = ("bernoulli", "gaussian")
CHUNK = 10  # codes a sample decoded at once when evidence is estimated


class VAE(nn.Module):
    """A variational autoencoder (Kingma and Welling 2014) with a standard normal prior, fully connected or recurrent.

    Args:
        input_shape: shape of one sample; of a recurrent one (T, D).
        hidden: units of the encoder's layers; the decoder mirrors them.
        latent: size Z of the code.
        likelihood: ``bernoulli`` (inputs in [0, 1], cross-entropy a pixel) or ``gaussian`` (unit variance), for inputs
            that are normalised otherwise.
        recurrent: True makes the layers recurrent ones over the steps of a sequence, see `Reader` and `Writer`.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __init__(
        self, input_shape: Sequence[int], hidden: Sequence[int], latent: int, likelihood: str, recurrent: bool = False
    ) -> None:
        super().__init__()
        expect(len(hidden) > 0 and all(h > 0 for h in hidden), "strategy.hidden", "a list of sizes > 0", list(hidden))
        expect(latent > 0, "strategy.latent", "> 0", latent)
        expect(likelihood in LIKELIHOODS, "strategy.likelihood", f"in {list(LIKELIHOODS)}", likelihood)
        self.input_shape, self.latent, self.likelihood = tuple(input_shape), latent, likelihood
        sizes = [math.prod(input_shape), *hidden]
        self.encoder = Reader(self.input_shape, hidden) if recurrent else _stack(sizes)
        self.mean, self.log_variance = nn.Linear(hidden[-1], latent), nn.Linear(hidden[-1], latent)
        if recurrent:
            self.decoder = Writer(self.input_shape, [latent, *reversed(hidden)])
        else:
            self.decoder = nn.Sequential(_stack([latent, *reversed(hidden)]), nn.Linear(hidden[0], sizes[0]))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, Z) of q(z | x)."""
        h = self.encoder(x.flatten(1))
        return self.mean(h), self.log_variance(h)

    def log_likelihood(self, x: Tensor, z: Tensor, likelihood: str | None = None) -> Tensor:
        """Return log p(x | z) in nats: (...,).

        Args:
            x: (..., D) flattened inputs.
            z: (..., Z) codes.
            likelihood: another one than the model was trained with: ``gaussian`` around the mean of a Bernoulli model.
        """
        out = full(self.decoder(z))
        if (likelihood or self.likelihood) == "bernoulli":
            return -F.binary_cross_entropy_with_logits(out, x.expand_as(out), reduction="none").sum(-1)
        return -0.5 * ((x - self.expected(out)).square() + math.log(2 * math.pi)).sum(-1)

    def expected(self, out: Tensor) -> Tensor:
        """Return the mean of p(x | z) for what the decoder gives, of the same shape."""
        return out.sigmoid() if self.likelihood == "bernoulli" else out

    def losses(self, x: Tensor, key: Tensor, purpose: str) -> Tensor:
        """Return minus the evidence lower bound of each sample in nats, by one draw of the code: (B,).

        The divergence from the prior is in closed form (Kingma and Welling 2014, appendix B).

        Args:
            x: (B, *input).
            key: () int64, the step's key.
            purpose: name of the draw.
        """
        mean, log_variance = self.encode(x)
        z = mean + (0.5 * log_variance).exp() * normal(key, mean.shape, purpose)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return divergence - self.log_likelihood(x.flatten(1), z)

    def sample(self, n: int, key: Tensor, purpose: str) -> Tensor:
        """Return n new inputs (n, *input), each the mean of p(x | z) for z from the prior."""
        z = normal(key, (n, self.latent), purpose)
        out: Tensor = self.decoder(z.to(self.mean.weight.dtype))
        return self.expected(out).reshape(n, *self.input_shape)

    def log_evidence(self, x: Tensor, noise: Tensor, likelihood: str | None = None) -> Tensor:
        """Return an estimate of log p(x) in nats by importance sampling from q(z | x): (B,).

        Burda, Grosse and Salakhutdinov 2016, eq. 8: log 1/L sum_l p(x | z_l) p(z_l) / q(z_l | x).

        Args:
            x: (B, *input).
            noise: (L, Z) standard normal numbers, used for every sample.
            likelihood: see `log_likelihood`.
        """
        mean, log_variance = self.encode(x)
        weights: list[Tensor] = []
        for part in torch.split(noise, CHUNK):
            z = mean + (0.5 * log_variance).exp() * part[:, None]  # (CHUNK, B, Z)
            # log p(z) - log q(z | x); the two normal densities share their constants.
            ratio = 0.5 * (part.square()[:, None] + log_variance - z.square()).sum(-1)
            weights.append(self.log_likelihood(x.flatten(1), z, likelihood) + ratio)
        return torch.cat(weights).logsumexp(0) - math.log(len(noise))

    def check(self, x: Tensor) -> None:
        """Raise `ConfigError` unless the likelihood can produce inputs such as x (B, *input)."""
        low, high = float(x.min()), float(x.max())
        suits = self.likelihood == "gaussian" or (low >= 0 and high <= 1)
        rule = "'unit' (inputs in [0, 1]) for strategy.likelihood=bernoulli, or strategy.likelihood=gaussian"
        expect(suits, "stream.normalise", rule, f"inputs in [{low:.3g}, {high:.3g}]")


def generator_for(
    info: StreamInfo, hidden: Sequence[int], latent: int, likelihood: str, recurrent: bool = False
) -> VAE:
    """Return a `VAE` of the inputs of a stream.

    Raises:
        ConfigError: the inputs are tokens.
    """
    expect(info.vocabulary == 0, "stream", "with inputs of numbers for a generator", f"{info.vocabulary} tokens")
    return VAE(info.input_shape, hidden, latent, likelihood, recurrent)


class Reader(nn.Module):
    """Layers of gated recurrent units that read a sequence; their last state tells the code (Fabius 2015, section 2).

    Fabius and van Amersfoort 2015, Variational recurrent auto-encoders (with a vanilla recurrent network).

    Args:
        shape: (T, D).
        hidden: units of each layer.
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.cells = nn.ModuleList([GRUCell(a, b) for a, b in itertools.pairwise([shape[1], *hidden])])

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state (B, H) for x (B, T D) flattened."""
        x = torch.unflatten(x, 1, self.shape)
        for cell in self.cells:
            x = cell(x)
        return x[:, -1]


class Writer(nn.Module):
    """Layers of gated recurrent units that write a sequence from a code.

    Differs from Fabius and van Amersfoort 2015: the code is an input at every step, as in Bowman et al. 2016, and not
    the first state, and no output is fed back, so that training and generation do the same.

    Args:
        shape: (T, D).
        sizes: size of the code, then units of each layer.
    """

    def __init__(self, shape: Sequence[int], sizes: Sequence[int]) -> None:
        super().__init__()
        self.steps = shape[0]
        self.cells = nn.ModuleList([GRUCell(a, b) for a, b in itertools.pairwise(sizes)])
        self.out = nn.Linear(sizes[-1], shape[1])

    def forward(self, z: Tensor) -> Tensor:
        """Return the outputs (..., T D) flattened for codes z (..., Z)."""
        h = z.reshape(-1, 1, z.shape[-1]).expand(-1, self.steps, -1)
        for cell in self.cells:
            h = cell(h)
        out: Tensor = self.out(h)
        return out.reshape(*z.shape[:-1], -1)


def _stack(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size_in, size_out in itertools.pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), nn.ReLU()]
    return nn.Sequential(*layers)
