"""A strategy chosen on the first batch is checked again on batches of another size, whose operators may differ."""

from __future__ import annotations

import pytest
import torch
from oracle import hook_loop
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator

WIDTH, TOKENS = 8, 6


class Recurrent(nn.Module):
    """Transposing one sample copies nothing, because its strides are in order. With stacked masks it does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.lstm = nn.Linear(WIDTH, WIDTH), nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.layer(x).tanh())[0][:, -1])


class SequenceFirst(nn.Module):
    """The first axis holds tokens, and only sometimes a multiple of the number of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.inner, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x).tanh().transpose(0, 1).contiguous()
        x = self.inner(x.view(-1, WIDTH)).view(TOKENS, -1, 5).sigmoid()
        return self.head(x.cumsum(0).tanh()[-1])


class HeadsFirst(SequenceFirst):
    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x).tanh().permute(2, 0, 1).contiguous().view(WIDTH, -1, TOKENS)
        x = (x * torch.linspace(1, 2, WIDTH)[:, None, None]).softmax(0).sum(2)
        return self.head(self.inner(x.t()))


class Rearranged(SequenceFirst):
    """What is added in place has another memory layout than the recorded sum."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH * TOKENS, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x).transpose(1, 2).contiguous().transpose(1, 2).tanh()
        y = x + self.mlp(x)
        return self.out((y + x.sum() * 0).transpose(1, 2).contiguous().view(len(x), -1).tanh())


@pytest.mark.parametrize("sizes", [(4, 4, 1), (4, 1, 4), (4, 3, 4), (4, 6, 2), (1, 4, 3), (6, 5)], ids=str)
@pytest.mark.parametrize("kind", [Recurrent, SequenceFirst, HeadsFirst, Rearranged])
def test_batches_of_all_sizes_equal_full_passes(kind: type[nn.Module], sizes: tuple[int, ...]):
    torch.manual_seed(0)
    model = kind().eval()
    x, y = torch.randn(sum(sizes), TOKENS, WIDTH), torch.arange(sum(sizes)) % 3
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    evaluator = CumulativeAblationEvaluator(model, "layer", metric="logit", steps=None, n_random=0, unit_dim=-1)
    curve = evaluator.evaluate(torch.rand(WIDTH), batches)
    assert not curve.engine.startswith("hook loop")
    rows = [
        hook_loop(model, "layer", a, b, curve.order, curve.n_ablated, metric="logit", unit_dim=-1) for a, b in batches
    ]
    torch.testing.assert_close(curve.score, torch.cat(rows, dim=1).double().mean(1), rtol=0, atol=1e-6)


def test_a_metric_may_return_the_same_memory_each_time():
    class Buffered:
        def __init__(self) -> None:
            self.memory = torch.empty(0)

        def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
            self.memory = self.memory if len(self.memory) == len(target) else torch.empty(len(target))
            return self.memory.copy_(outputs.gather(1, target[:, None]).squeeze(1))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    x, y, scores = torch.randn(12, 5), torch.arange(12) % 3, torch.rand(7)
    own, named = (
        CumulativeAblationEvaluator(model, "0", metric=metric, n_random=0).evaluate(scores, (x, y)).score
        for metric in (Buffered(), "logit")
    )
    torch.testing.assert_close(own, named, rtol=0, atol=1e-6)
