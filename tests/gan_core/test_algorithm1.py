"""One iteration, in both schemes, against a reference written out with plain autograd and loops."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from gan_core.algorithm1 import AlgorithmSettings, Batch, train_step
from gan_core.data_parallel import Shards
from gan_core.draws import Draw, Draws, DrawSource
from gan_core.networks import build
from gan_core.networks.dense import (
    DenseDiscriminator,
    DenseDiscriminatorSettings,
    DenseGenerator,
    DenseGeneratorSettings,
    NetworkSettings,
)
from gan_core.noise import NoiseSettings
from gan_core.optimizers import MomentumSettings
from gan_core.state import State

ROWS, NOISE, PIXELS, PIECES, PER_EPOCH, STEPS = 8, 3, 5, 2, 4, 4
G_SETTINGS = DenseGeneratorSettings(hidden=(6,), init_range=1.0)
D_SETTINGS = DenseDiscriminatorSettings(units=(4, 3), pieces=PIECES, init_range=1.0)
SETTINGS = AlgorithmSettings(
    batch_size=ROWS,
    generator_learning_rate=1.0,
    discriminator_learning_rate=0.3,
    learning_rate_decay=1.5,
    minimum_learning_rate=0.2,
    momentum=MomentumSettings(0.5, 0.9, 0.25, 1.5),
)
Nets = dict[str, list[torch.Tensor]]


def initial(seed: int = 0, optimizer: str = "momentum", max_column_norm: float | None = None) -> State:
    discriminator = replace(D_SETTINGS, max_column_norm=max_column_norm)
    nets = build(NetworkSettings(generator=G_SETTINGS, discriminator=discriminator), NOISE, PIXELS, seed)
    random = torch.Generator().manual_seed(seed)
    for net in nets:
        # Where dropout leaves nothing, equal biases would tie maxout's pieces, and a tie has no gradient.
        for bias in net.double().biases:
            bias.data = torch.rand(bias.shape, generator=random, dtype=torch.float64) - 0.5
    return State.initial(*nets, optimizer)


def batches(step: int, k: int, seed: int = 0) -> list[Batch]:
    random = torch.Generator().manual_seed(1000 * seed + step)
    none = torch.empty(ROWS, 0, dtype=torch.float64)
    return [Batch(torch.rand(ROWS, PIXELS, generator=random, dtype=torch.float64), none) for _ in range(k)]


def each(draws: Draws, change) -> Draws:
    """The draws with every tensor changed."""

    def draw(d: Draw) -> Draw:
        return Draw(change(d.noise), tuple(map(change, d.real_masks)), tuple(map(change, d.fake_masks)))

    return Draws(tuple(map(draw, draws.discriminator)), draw(draws.generator))


def drawn(step: int, settings: AlgorithmSettings, seed: int = 0) -> Draws:
    dropout = [(PIXELS, 0.8), *((units, 0.5) for units in D_SETTINGS.units)]
    noise = NoiseSettings(size=NOISE)
    source = DrawSource(seed, noise, dropout, ROWS, settings.discriminator_steps, settings.share_draws)
    return each(source.at(step), torch.Tensor.double)


def run(state: State, settings: AlgorithmSettings, steps: int = STEPS, virtual: int = 1, seed: int = 0):
    for step in range(steps):
        real = batches(step, settings.discriminator_steps, seed)
        outcome = train_step(state, real, drawn(step, settings, seed), settings, Shards(ROWS, virtual), PER_EPOCH)
    return outcome


def weights(state: State) -> Nets:
    nets = {"g": state.generator, "d": state.discriminator}
    return {
        name: [p.detach().clone() for pair in zip(net.weights, net.biases, strict=True) for p in pair]
        for name, net in nets.items()
    }


def reference(nets: Nets, settings: AlgorithmSettings, max_column_norm: float | None = None, seed: int = 0):
    """The final weights, and the last step's losses and accuracies, from the paper's text alone."""
    nets = {name: [p.clone().requires_grad_() for p in parameters] for name, parameters in nets.items()}
    velocity = {name: [torch.zeros_like(p) for p in parameters] for name, parameters in nets.items()}
    rates = {"g": settings.generator_learning_rate, "d": settings.discriminator_learning_rate}
    adam = {
        name: torch.optim.Adam(nets[name], betas=(settings.adam.beta1, settings.adam.beta2), eps=settings.adam.epsilon)
        for name in nets
    }

    def generator(z):
        w, b, v, c = nets["g"]
        return torch.sigmoid(torch.relu(z @ w + b) @ v + c)

    def logit(x, masks):
        *hidden, w, b = nets["d"]
        for v, c, mask in zip(hidden[::2], hidden[1::2], masks[:-1], strict=True):
            pieces = ((x * mask) @ v + c).chunk(PIECES, dim=1)
            x = torch.stack(pieces).max(dim=0).values
        return ((x * masks[-1]) @ w + b)[:, 0]

    def discriminator_loss(batch, draw):
        real, fake = logit(batch.data, draw.real_masks), logit(generator(draw.noise), draw.fake_masks)
        value = torch.log(torch.sigmoid(real)) + torch.log(1 - torch.sigmoid(fake))
        margins = torch.clamp(1 - real, min=0) + torch.clamp(1 + fake, min=0)
        squares = (real - 1) ** 2 / 2 + fake**2 / 2
        return {"hinge": margins, "least_squares": squares}.get(settings.generator_loss, -value).mean(), real, fake

    def gradient_penalty(batch, draw):
        """gamma / 2 times the mean of the squared norms of D's gradients, one real example after another."""
        norms = []
        for row, example in enumerate(batch.data):
            x = example[None].clone().requires_grad_()
            masks = [mask[row : row + 1] for mask in draw.real_masks]
            (gradient,) = torch.autograd.grad(logit(x, masks).sum(), x, create_graph=True)
            norms.append((gradient**2).sum())
        return settings.gradient_penalty / 2 * sum(norms) / len(norms)

    def generator_loss(draw):
        fake = logit(generator(draw.noise), draw.fake_masks)
        paper = {"minimax": torch.log(1 - torch.sigmoid(fake)), "non_saturating": -torch.log(torch.sigmoid(fake))}
        objectives = {**paper, "blend": sum(paper.values()) / 2, "hinge": -fake, "least_squares": (fake - 1) ** 2 / 2}
        return objectives[settings.generator_loss].mean()

    def apply(name, gradients, step):
        rate = max(rates[name] / settings.learning_rate_decay**step, settings.minimum_learning_rate)
        if settings.optimizer == "adam":
            for parameter, gradient in zip(nets[name], gradients, strict=True):
                parameter.grad = gradient
            adam[name].param_groups[0]["lr"] = rate
            adam[name].step()
            return
        m, epoch = settings.momentum, step * settings.discriminator_steps / PER_EPOCH
        progress = min(max((epoch - m.start_epoch) / (m.saturate_epoch - m.start_epoch), 0), 1)
        coefficient = m.initial + (m.final - m.initial) * progress
        for parameter, gradient, v in zip(nets[name], gradients, velocity[name], strict=True):
            v.copy_(coefficient * v - rate * gradient)
            parameter.data += v
        if name == "d" and max_column_norm is not None:
            for weight in nets["d"][::2]:
                for column in range(weight.shape[1]):
                    norm = weight.data[:, column].norm()
                    if norm > max_column_norm:
                        weight.data[:, column] *= max_column_norm / norm

    for step in range(STEPS):
        draws = drawn(step, settings, seed)
        real_batches = batches(step, settings.discriminator_steps, seed)
        for i, (batch, draw) in enumerate(zip(real_batches, draws[0], strict=True)):
            of_d, real, fake = discriminator_loss(batch, draw)
            minimised = settings.discriminator_loss_scale * of_d
            minimised = minimised + gradient_penalty(batch, draw) if settings.gradient_penalty else minimised
            ascent = torch.autograd.grad(minimised, nets["d"])
            last = i == settings.discriminator_steps - 1
            if last and settings.scheme == "simultaneous":
                loss = generator_loss(draws.discriminator[-1] if settings.share_draws else draws.generator)
                descent = torch.autograd.grad(loss, nets["g"])
            apply("d", ascent, step)
        if settings.scheme == "algorithm1":
            loss = generator_loss(draws.generator)
            descent = torch.autograd.grad(loss, nets["g"])
        apply("g", descent, step)
    half = 0.5 if settings.generator_loss == "least_squares" else 0  # between the labels 0 and 1, or where D is 1/2
    seen = [of_d, loss, (real > half).double().mean(), (fake < half).double().mean()]
    return {name: [p.detach() for p in ps] for name, ps in nets.items()}, [s.item() for s in seen]


def difference(one: Nets, other: Nets) -> dict[str, float]:
    return {name: max((a - b).abs().max().item() for a, b in zip(one[name], other[name], strict=True)) for name in one}


CASES = [
    {"scheme": "algorithm1", "share_draws": False, "discriminator_loss_scale": 1.0},
    {"scheme": "algorithm1", "share_draws": False, "discriminator_steps": 3, "generator_loss": "minimax"},
    {"scheme": "algorithm1", "share_draws": True, "generator_loss": "blend"},
    {"scheme": "algorithm1", "share_draws": False, "discriminator_steps": 3, "optimizer": "adam"},
    {"scheme": "simultaneous", "share_draws": True},
    {"scheme": "simultaneous", "share_draws": True, "discriminator_steps": 3, "generator_loss": "minimax"},
    {"scheme": "simultaneous", "share_draws": False, "generator_loss": "blend", "discriminator_loss_scale": 1.0},
    {"scheme": "simultaneous", "share_draws": False, "discriminator_steps": 3},
    {"scheme": "simultaneous", "share_draws": True, "optimizer": "adam"},
    {"scheme": "algorithm1", "share_draws": False, "generator_loss": "hinge"},
    {"scheme": "simultaneous", "share_draws": True, "generator_loss": "least_squares"},
    {"scheme": "algorithm1", "share_draws": False, "discriminator_steps": 3, "gradient_penalty": 0.3},
    {"scheme": "simultaneous", "share_draws": True, "gradient_penalty": 0.5},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_step_equals_reference_of_both_schemes(case):
    """A step is Algorithm 1 as the paper has it, or the published code's scheme, as a plain autograd reference."""
    settings, state = replace(SETTINGS, **case), initial(optimizer=case.get("optimizer", "momentum"))
    start = weights(state)
    expected, seen = reference(start, settings)
    outcome = run(state, settings)
    # Rates and momentum are float32, 2^-24 relative on updates of at most some units; all else is float64.
    assert max(difference(weights(state), expected).values()) < 1e-6
    ours = [outcome.ascent.loss, outcome.descent.loss, outcome.ascent.real_accuracy, outcome.ascent.fake_accuracy]
    assert [float(value) for value in ours] == pytest.approx(seen, abs=1e-6)
    assert min(difference(weights(state), start).values()) > 0.02
    assert int(state.step) == STEPS


def test_the_weight_constraint_follows_each_update_of_d():
    state = initial(max_column_norm=0.9)
    expected, _ = reference(weights(state), SETTINGS, max_column_norm=0.9)
    run(state, SETTINGS)
    # As above; without the constraint the same run ends elsewhere.
    assert max(difference(weights(state), expected).values()) < 1e-6
    free = initial()
    run(free, SETTINGS)
    assert min(difference(weights(state), weights(free)).values()) > 1e-3


def test_the_schemes_the_objectives_and_k_all_lead_elsewhere():
    ends = []
    for case in CASES:
        state = initial(optimizer=case.get("optimizer", "momentum"))
        run(state, replace(SETTINGS, **case))
        ends.append(weights(state))
    # A thousand times the tolerance of the reference test.
    assert all(min(difference(a, b).values()) > 1e-3 for a, b in itertools.combinations(ends, 2))


@pytest.mark.parametrize("scheme", ["algorithm1", "simultaneous"])
def test_each_d_update_uses_its_own_batch_and_draws(scheme):
    """Each of D's k updates uses its own minibatch, z and masks: changing any one of them changes D."""
    settings = replace(SETTINGS, scheme=scheme, discriminator_steps=3, share_draws=False)
    real, draws, shards = batches(0, 3), drawn(0, settings), Shards(ROWS)

    def end(real, draws):
        state = initial()
        train_step(state, real, draws, settings, shards, PER_EPOCH)
        return weights(state)["d"]

    other, ends = drawn(1, settings), [end(real, draws)]
    for i in range(3):
        ends.append(end([*real[:i], batches(1, 1)[0], *real[i + 1 :]], draws))
        for name in Draw._fields:
            changed = draws.discriminator[i]._replace(**{name: getattr(other.discriminator[i], name)})
            updates = (*draws.discriminator[:i], changed, *draws.discriminator[i + 1 :])
            ends.append(end(real, draws._replace(discriminator=updates)))
    assert len({tuple(torch.cat([p.flatten() for p in end]).tolist()) for end in ends}) == 1 + 3 * 4


def test_as_many_minibatches_as_updates_are_needed():
    settings = replace(SETTINGS, discriminator_steps=3)
    with pytest.raises(ValueError, match="zip"):
        train_step(initial(), batches(0, 2), drawn(0, settings), settings, Shards(ROWS), PER_EPOCH)


@pytest.mark.parametrize("case", [*CASES[1::3], CASES[-1]], ids=lambda case: "-".join(map(str, case.values())))
def test_shard_counts_agree_to_rounding(case):
    """With 1, 2 and 4 virtual shards a step's results differ by the rounding of float64 sums alone."""
    settings, ends = replace(SETTINGS, **case), []
    for virtual in (1, 2, 4):
        state = initial(optimizer=case.get("optimizer", "momentum"))
        outcome = run(state, settings, virtual=virtual)
        ends.append(weights(state) | {"seen": [*outcome.ascent[1:], outcome.descent.loss]})
    # float64 sums of 8 rows in other orders, over four steps whose sensitivity is of order 100.
    assert max(*difference(ends[0], ends[1]).values(), *difference(ends[0], ends[2]).values()) < 1e-12


@pytest.mark.parametrize("case", CASES[2::2], ids=lambda case: "-".join(map(str, case.values())))
def test_population_member_moves_as_it_would_alone(case):
    """Each member of a population ends with the weights and losses of its own training, to rounding."""
    settings, optimizer = replace(SETTINGS, **case), case.get("optimizer", "momentum")
    alone = [initial(seed, optimizer) for seed in range(3)]
    generator = DenseGenerator(NOISE, 0, PIXELS, G_SETTINGS, members=(3,)).double()
    discriminator = DenseDiscriminator(PIXELS, 0, replace(D_SETTINGS, max_column_norm=None), members=(3,)).double()
    for net, solos in ((generator, [s.generator for s in alone]), (discriminator, [s.discriminator for s in alone])):
        for parameter, members in zip(
            net.parameters(), zip(*(n.parameters() for n in solos), strict=True), strict=True
        ):
            parameter.data = torch.stack([member.detach() for member in members])
    together = State.initial(generator, discriminator, optimizer)
    for step in range(STEPS):
        # Each member has its own minibatches and draws: those of the seed it would train with alone.
        real = zip(*(batches(step, settings.discriminator_steps, seed) for seed in range(3)), strict=True)
        mine = [drawn(step, settings, seed) for seed in range(3)]
        stacked = [Batch(*map(torch.stack, zip(*members, strict=True))) for members in real]
        outcome = train_step(together, stacked, stack(mine), settings, Shards(ROWS, 2), PER_EPOCH)
    for seed, state in enumerate(alone):
        solo = run(state, settings, virtual=2, seed=seed)
        member = {name: [p[seed] for p in parameters] for name, parameters in weights(together).items()}
        # A batched product may add in another order: float64 rounding, grown by the steps.
        assert max(difference(member, weights(state)).values()) < 1e-12
        assert outcome.ascent.loss[seed].item() == pytest.approx(solo.ascent.loss.item(), abs=1e-12)
        assert outcome.descent.loss[seed].item() == pytest.approx(solo.descent.loss.item(), abs=1e-12)


def stack(members: list[Draws]) -> Draws:
    def draw(draws: list[Draw]) -> Draw:
        masks = [tuple(map(torch.stack, zip(*(d[field] for d in draws), strict=True))) for field in (1, 2)]
        return Draw(torch.stack([d.noise for d in draws]), *masks)

    discriminator = tuple(draw(list(update)) for update in zip(*(m.discriminator for m in members), strict=True))
    return Draws(discriminator, draw([m.generator for m in members]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("discriminator_steps", 0), ("batch_size", 0), ("steps", -1), ("generator_learning_rate", 0.0),
        ("generator_learning_rate", math.nan), ("discriminator_learning_rate", math.inf),
        ("discriminator_learning_rate", -0.1), ("minimum_learning_rate", 0.0), ("discriminator_loss_scale", 0.0),
        ("gradient_penalty", -1.0), ("gradient_penalty", math.inf),
        ("learning_rate_decay", 0.99), ("learning_rate_decay", math.nan),
    ],
)  # fmt: skip
def test_settings_that_cannot_train_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"algorithm.{name} {value} is "):
        AlgorithmSettings(**{name: value})
