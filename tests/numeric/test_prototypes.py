"""NCM and SLDA against numpy and scikit-learn on the same features."""

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid

from cl.errors import ConfigError
from cl.testing.tiny import TinyStream, engine, train
from strategies.ncm import NCM
from strategies.slda import SLDA

EVERYTHING = torch.arange(80)


def features(strategy, stream, test=False):
    parts = [stream.test(k) if test else stream[k].train for k in range(3)]
    with torch.no_grad():
        z = torch.cat([strategy.eval().features(p.inputs(torch.arange(len(p)))) for p in parts])
        x = torch.cat([p.inputs(torch.arange(len(p))) for p in parts])
    return z.double().numpy(), torch.cat([p.labels for p in parts]).numpy(), x


@pytest.mark.parametrize("normalise", [False, True])
def test_ncm_is_the_nearest_centroid(normalise):
    stream = TinyStream("class")
    strategy = train(NCM, stream, epochs=5, after=1, normalise=normalise).strategy
    z, y, _ = features(strategy, stream)
    reference = NearestCentroid().fit(z, y)
    np.testing.assert_allclose(strategy.mean.numpy(), reference.centroids_, rtol=1e-4, atol=1e-6)
    z, _, x = features(strategy, stream, test=True)
    if not normalise:  # scikit-learn does not scale the centroids
        np.testing.assert_array_equal(strategy.predict(x).argmax(1).numpy(), reference.predict(z))
    length = np.linalg.norm(reference.centroids_, axis=1, keepdims=True) if normalise else 1.0
    squares = ((z[:, None] - reference.centroids_ / length) ** 2).sum(2)
    np.testing.assert_allclose(strategy.predict(x).detach().numpy(), -squares, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [NCM, SLDA])
def test_a_class_without_a_mean_loses_to_every_class_with_one(kind):
    """While the second task is learned its classes are allowed, and have no mean yet."""
    stream = TinyStream("class")
    running = engine(kind, stream, epochs=2)
    running.run_task(0)
    running.begin(1)
    scores = running.strategy.eval().predict(next(stream.test(1).in_order(99)).x)
    assert scores[:, :2].min() > scores[:, 2:].max()
    assert scores[:, 2:4].min() > scores[:, 4:].max(), "and beats one that is not allowed"


@pytest.mark.parametrize("shrinkage", [0.3, 1e-2])
def test_slda_is_scikit_learns_lda(shrinkage):
    class Shrunk:
        def fit(self, z):
            self.covariance_ = (1 - shrinkage) * np.cov(z.T, bias=True) + shrinkage * np.eye(z.shape[1])
            return self

    stream = TinyStream("class")
    strategy = train(SLDA, stream, epochs=5, after=1, shrinkage=shrinkage).strategy
    z, y, _ = features(strategy, stream)
    reference = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Shrunk(), priors=np.full(6, 1 / 6))
    reference.fit(z, y)
    np.testing.assert_allclose(strategy.weight.numpy(), reference.coef_, rtol=2e-3, atol=2e-3)
    z, _, x = features(strategy, stream, test=True)
    np.testing.assert_array_equal(strategy.predict(x).argmax(1).numpy(), reference.predict(z))


def test_on_inputs_they_are_scikit_learns_and_need_no_network():
    """A learner that any training would change stays as it was made."""
    stream = TinyStream("class")
    pixels, y = (torch.cat([getattr(next(iter(stream[k].train.in_order(999))), f) for k in range(3)]) for f in "xy")
    test = torch.cat([next(iter(stream.test(k).in_order(999))).x for k in range(3)])
    lda = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(6, 1 / 6)).fit(pixels.flatten(1).numpy(), y.numpy())
    centroids = NearestCentroid().fit(pixels.flatten(1).numpy(), y.numpy())
    for kind, reference in ((SLDA, lda), (NCM, centroids)):
        fresh = engine(kind, stream, after=0, space="inputs").strategy.learner.state_dict()
        strategy = train(kind, stream, epochs=3, after=0, space="inputs").strategy
        found = strategy.predict(test).argmax(1).numpy()
        assert (found == reference.predict(test.flatten(1).numpy())).mean() > 0.995  # SLDA shrinks by 1e-4
        assert all(t.equal(fresh[name]) for name, t in strategy.learner.state_dict().items())
    with pytest.raises(ConfigError, match=r"strategy\.after"):
        train(SLDA, stream, space="inputs")


def test_batches_of_any_size_give_one_covariance():
    strategy = train(SLDA, TinyStream("class"), epochs=1).strategy
    z = torch.randn(60, 16, generator=torch.Generator().manual_seed(0)) * 3 + 1
    y = torch.arange(60) % 4
    found = []
    for size in (1, 7, 60):
        strategy.count.zero_(), strategy.mean.zero_(), strategy.scatter.zero_()
        for zb, yb in zip(z.split(size), y.split(size), strict=True):
            inside, step, weight = strategy.observe(zb, yb)
            strategy.scatter += inside.T @ inside + (step * weight[:, None]).T @ step
        found.append(strategy.scatter.clone())
    direct = sum(np.cov(z[y == c].numpy().T, bias=True) * 15 for c in range(4))
    for scatter in found:
        np.testing.assert_allclose(scatter.numpy(), direct, rtol=1e-3, atol=1e-2)


def test_a_fixed_covariance_stays():
    stream = TinyStream("class")
    fixed, plastic = (train(SLDA, stream, epochs=3, plastic=p).strategy for p in (False, True))
    assert (int(fixed.scattered), int(plastic.scattered)) == (80, 240)
    assert not torch.equal(fixed.scatter, plastic.scatter)
    assert torch.equal(fixed.mean, plastic.mean)


def test_nothing_is_trained_after_the_freeze():
    trained = train(NCM, TinyStream("class"), epochs=2, after=1)
    assert trained.record.task_steps == [10, 0, 0]


@pytest.mark.parametrize(("kind", "normalise"), [(NCM, False), (NCM, True), (SLDA, False)])
def test_base_tasks_are_taken_together_through_the_features_that_stay(kind, normalise):
    """The backbone learns on two of three tasks; the means of all are those of the final features."""
    stream = TinyStream("class")
    strategy = train(kind, stream, epochs=5, after=2, normalise=normalise).strategy
    assert strategy.sees == "past"
    z, y, _ = features(strategy, stream)
    np.testing.assert_allclose(strategy.mean.numpy(), NearestCentroid().fit(z, y).centroids_, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(strategy.count.numpy(), np.full(6, 40))
    if kind is SLDA:
        inside = z - np.stack([z[y == c].mean(0) for c in range(6)])[y]
        np.testing.assert_allclose(strategy.scatter.numpy(), inside.T @ inside, rtol=1e-3, atol=1e-4)
        assert int(strategy.scattered) == 240


@pytest.mark.parametrize("after", [1, 2])
def test_oas_is_scikit_learns(after):
    stream = TinyStream("class")
    strategy = train(SLDA, stream, epochs=3, after=after, covariance="oas", plastic=False).strategy
    z, y, _ = features(strategy, stream)
    base = y < 2 * after
    inside = (z - np.stack([z[y == c].mean(0) for c in range(6)])[y])[base]
    expected = OAS(assume_centered=True).fit(inside).covariance_
    np.testing.assert_allclose(strategy.scatter.numpy() / base.sum(), expected, rtol=1e-3, atol=1e-5)
