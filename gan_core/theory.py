"""Section 4 on finite distributions and in one dimension: D*, C(G), divergences, the descent of Prop. 2."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import log_expit, rel_entr, roots_legendre

from gan_core.objectives.value_function import GeneratorLoss

# A distribution is an array of probabilities, or the values of a density at the nodes of a quadrature,
# whose weights then go with it. D is given by its logits: log D = log_expit(logit) stays exact where D rounds to 1.
Distribution = Float[np.ndarray, " points"]
Weights = Float[np.ndarray, " points"] | float


class Quadrature(NamedTuple):
    """Nodes and weights: the integral of f is the sum of weights * f(nodes)."""

    nodes: Float[np.ndarray, " points"]
    weights: Float[np.ndarray, " points"]


def quadrature(low: float, high: float, panels: int = 200, order: int = 10) -> Quadrature:
    """Gauss-Legendre on equal panels of an interval: exact for polynomials of degree 2 `order` - 1 in each."""
    nodes, weights = roots_legendre(order)
    edges = np.linspace(low, high, panels + 1)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    centres = (edges[1:] + edges[:-1])[:, None] / 2
    return Quadrature((centres + half * nodes).ravel(), (half * weights).ravel())


def optimal_discriminator(p_data: Distribution, p_g: Distribution) -> Distribution:
    """Eq. 2: D*(x) = p_data(x) / (p_data(x) + p_g(x)); 1/2 where neither has mass and any D is optimal."""
    total = p_data + p_g
    return np.divide(p_data, total, out=np.full_like(total, 0.5), where=total > 0)


def optimal_logits(p_data: Distribution, p_g: Distribution) -> Distribution:
    """The logits of D*, log p_data(x) - log p_g(x): infinite where only one of them has mass, 0 where neither has."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p_data + p_g > 0, np.log(p_data) - np.log(p_g), 0.0)


def value(p_data: Distribution, p_g: Distribution, logits: Distribution, weights: Weights = 1.0) -> float:
    """Eq. 1, V(D, G) = E_data[log D(x)] + E_g[log(1 - D(x))], in nats; what has no mass counts for nothing."""
    with np.errstate(invalid="ignore"):  # 0 times an infinite logarithm
        of_data = np.where(p_data > 0, p_data * log_expit(logits), 0.0)
        of_g = np.where(p_g > 0, p_g * log_expit(-logits), 0.0)
    return float(np.sum((of_data + of_g) * weights))


def criterion(p_data: Distribution, p_g: Distribution, weights: Weights = 1.0) -> float:
    """Eq. 4, C(G) = max_D V(D, G): the value function at D*."""
    return value(p_data, p_g, optimal_logits(p_data, p_g), weights)


def kullback_leibler(p: Distribution, q: Distribution, weights: Weights = 1.0) -> float:
    """KL(p || q) = E_p[log p - log q], in nats; infinite if p has mass where q has none."""
    return float(np.sum(rel_entr(p, q) * weights))


def jensen_shannon(p: Distribution, q: Distribution, weights: Weights = 1.0) -> float:
    """JSD(p || q) = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2, in nats, from 0 to log 2."""
    # 2p against p + q, and not p against m: half of the smallest number would be zero.
    return float(np.sum((rel_entr(2 * p, p + q) + rel_entr(2 * q, p + q)) * weights)) / 4


def convex_descent(
    p_data: Distribution, p_g: Distribution, rate: float = 1.0, weights: Weights = 1.0
) -> Iterator[Distribution]:
    """Prop. 2: p_g after each step of a descent of V(D, G) in p_g itself, with D at its optimum at every step.

    With D* held, V is linear in p_g with slope log(1 - D*(x)), a subgradient of the convex C. A step
    multiplies p_g by exp(-rate * slope) and makes it a distribution again:

        p_g <- p_g^(1 - rate) (p_data + p_g)^rate / Z

    C is 1-smooth relative to the negative entropy (its second derivative, p_data / (p_g (p_data + p_g)),
    is below 1 / p_g), so for any rate up to 1 no step raises C, and after t of them it is within
    KL(p_data || p_g at the start) / (rate t) of -log 4 (Lu, Freund and Nesterov 2018, Theorem 3.1,
    arXiv 1610.05708). At rate 1 a step is the mean of p_data and p_g.

    Raises:
        ValueError: If the rate is not in (0, 1], or below 1 where p_g misses a point of p_data:
            a product never leaves zero.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate {rate} is not in (0, 1]")
    if rate < 1 and np.any((p_g == 0) & (p_data > 0)):
        raise ValueError(f"p_g is zero at a point of p_data, which a rate of {rate} never leaves; use 1")
    while True:
        moved = p_g ** (1 - rate) * (p_data + p_g) ** rate
        p_g = moved / np.sum(moved * weights)
        yield p_g


def gradient_by_logit(loss: GeneratorLoss, discriminator: Distribution) -> Distribution:
    """The size of a generator loss's derivative by D's logit, where D(G(z)) is `discriminator` (section 3).

    Of log(1 - D) it is D: next to nothing where D rejects the fakes, as it does early, so that G
    hardly moves where it is worst. Of -log D it is 1 - D, large there and small where G passes.
    """
    sizes = {"minimax": discriminator, "non_saturating": 1 - discriminator, "blend": np.full_like(discriminator, 0.5)}
    return sizes[loss]


def gradient_by_probability(loss: GeneratorLoss, discriminator: Distribution) -> Distribution:
    """The size of a generator loss's derivative by D(G(z)) itself: 1 / (1 - D) of log(1 - D), 1 / D of -log D.

    G sees it times D's slope, dD/dlogit = D (1 - D), which is small where D is sure: the product is
    `gradient_by_logit`. Only 1 / D makes up for that where D rejects the fakes.
    """
    return gradient_by_logit(loss, discriminator) / (discriminator * (1 - discriminator))


def jensen_shannon_bound(achieved: float) -> float:
    """What a D whose V(D, G) is `achieved` says of JSD(p_data || p_g): at least (V + log 4) / 2, by Theorem 1.

    The bias is on one side. V of any D that does not know the points it is averaged over is at most
    C(G) in expectation, and less the further D is from D*. An estimate can be below zero (D is worse
    than a guess) and says nothing then.

    With dropout each mask is a D of its own, so V under dropout is a bound as well; by Jensen's inequality
    it is at most that of the masks' mean logit. Where only the last hidden layer's units are dropped, that is the
    logit with dropout off, and so the bound is lower with dropout on: in Fig. 1's game with p_g normal, JSD
    0.0295, a D trained with half its units kept gives 0.019 with dropout on and 0.0256 with it off, and
    one trained without dropout 0.0288. Where a maxout follows the dropout, either can be the higher.

    The bound is on the distribution the points come from: D has seen a training set's examples in earlier
    epochs, so over them it bounds the distance between p_g and those examples, and for p_data itself it
    asks for examples held out.
    """
    return (achieved + math.log(4)) / 2


class BoundEstimate(NamedTuple):
    """A lower bound on JSD(p_data || p_g), in nats, and the standard error of its estimate."""

    bound: float
    standard_error: float


def estimate_jensen_shannon(
    real_logits: Float[np.ndarray, " examples"], fake_logits: Float[np.ndarray, " samples"]
) -> BoundEstimate:
    """`jensen_shannon_bound` from a trained D's logits on real examples and on samples, none of them known to D."""
    of_data, of_g = log_expit(real_logits.astype(np.float64)), log_expit(-fake_logits.astype(np.float64))
    errors = [terms.std(ddof=1) / math.sqrt(len(terms)) for terms in (of_data, of_g)]
    return BoundEstimate(jensen_shannon_bound(float(of_data.mean() + of_g.mean())), math.hypot(*errors) / 2)
