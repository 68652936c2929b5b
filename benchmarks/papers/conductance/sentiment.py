"""Movie reviews in numbers, and a Kim-style convolutional network that predicts their sentiment.

``python -m benchmarks.papers.conductance.sentiment 50`` trains the networks with a hidden layer of 50 units beforehand.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import trange

from benchmarks.papers.common.data import Labelled, movie_reviews
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained, accuracy, trained

WIDTHS = (3, 4, 5)
"""Words that a filter spans, as in Kim (2014)."""

FILTERS = 100
EMBEDDING = 50
HIDDEN = 50
LENGTH = 64
"""Words of a sentence, padding included: a filter of five words may start before the sentence and end after it."""

PAD, UNKNOWN = 0, 1
SPREAD = 0.25
"""Standard deviation of untrained embeddings."""

EPOCHS, BATCH, RATE = 6, 50, 3e-3
FLOOR = 0.72


@dataclass(frozen=True)
class Vocabulary:
    """Words with their numbers: 0 is padding, and 1 any word that occurs less than twice in the training data."""

    numbers: dict[str, int]

    @classmethod
    def of(cls, sentences: Iterable[str], at_least: int = 2) -> Vocabulary:
        """Return the words of the training ``sentences``, most frequent first."""
        counts = Counter(word for sentence in sentences for word in sentence.split())
        words = [word for word, count in counts.most_common() if count >= at_least]
        return cls({word: number for number, word in enumerate(words, start=2)})

    def __len__(self) -> int:
        return len(self.numbers) + 2

    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Return word numbers ``[n, LENGTH]``; ``max(WIDTHS) - 1`` numbers of padding precede each sentence."""
        before = max(WIDTHS) - 1
        encoded = torch.full((len(sentences), LENGTH), PAD)
        for row, sentence in zip(encoded, sentences, strict=True):
            numbers = [self.numbers.get(word, UNKNOWN) for word in sentence.split()][: LENGTH - before]
            row[before : before + len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        return encoded


class Reader(nn.Module):
    """Map ``embedded [n, words, size]`` to ``logits [n, 2]``: convolution, ReLU, maximum over words, dense layers.

    ``pooled`` is the layer to study: one value per filter, ``[n, filters]``. With ``hidden = 0`` the logits are linear
    in it, as in Kim (2014); otherwise a dense ReLU layer lies between.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(EMBEDDING, FILTERS, width) for width in WIDTHS)
        self.relus = nn.ModuleList(nn.ReLU() for _ in WIDTHS)
        self.pooled = nn.Identity()
        self.dropout = nn.Dropout(0.5)
        filters = FILTERS * len(WIDTHS)
        self.between = nn.Sequential(nn.Linear(filters, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.classifier = nn.Linear(hidden or filters, 2)

    def forward(self, embedded: Tensor) -> Tensor:
        words = embedded.transpose(1, 2)
        maxima = [
            relu(convolution(words)).amax(dim=2)
            for convolution, relu in zip(self.convolutions, self.relus, strict=True)
        ]
        logits: Tensor = self.classifier(self.between(self.dropout(self.pooled(torch.cat(maxima, dim=1)))))
        return logits


class SentimentNetwork(nn.Module):
    """Map ``words [n, LENGTH]`` to ``logits [n, 2]`` (negative, positive): learned embeddings and a ``Reader``."""

    def __init__(self, words: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, EMBEDDING, padding_idx=PAD)
        with torch.no_grad():
            self.embedding.weight.mul_(SPREAD)
        self.dropout = nn.Dropout(0.5)
        self.reader = Reader(hidden)

    def forward(self, words: Tensor) -> Tensor:
        logits: Tensor = self.reader(self.dropout(self.embedding(words)))
        return logits

    def embed(self, words: Tensor) -> Tensor:
        """Return the embeddings ``[n, LENGTH, EMBEDDING]`` that ``reader`` takes; padding is all zeros."""
        with torch.no_grad():
            embedded: Tensor = self.embedding(words)
        return embedded


def sentiment_network(words: int, hidden: int, *, seed: int) -> SentimentNetwork:
    """Return an untrained network for a vocabulary of ``words``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SentimentNetwork(words, hidden)


@dataclass(frozen=True)
class Sentences:
    """The reviews: words ``[n, LENGTH]`` and labels ``[n]`` (1 positive) of both parts, and the text of one."""

    vocabulary: Vocabulary
    train: Labelled
    test: Labelled
    test_text: tuple[str, ...]


@cache
def sentences(scale: Scale = Scale.NORMAL) -> Sentences:
    """Return the movie reviews in numbers; at quick scale the first 1,500 training and 300 test sentences."""
    frame = movie_reviews()
    train, test = (frame[frame["split"] == part] for part in ("train", "test"))
    train, test = train.head(scale.pick(1_500, len(train))), test.head(scale.pick(300, len(test)))
    vocabulary = Vocabulary.of(train["text"])
    parts = [Labelled(vocabulary.encode(list(p["text"])), torch.tensor(p["label"].to_numpy())) for p in (train, test)]
    return Sentences(vocabulary, *parts, tuple(test["text"]))


def trained_reader(hidden: int, seed: int, scale: Scale = Scale.NORMAL) -> Trained:
    """Return a trained ``SentimentNetwork`` and its test accuracy, which must reach 72 % except at quick scale."""
    data, epochs = sentences(scale), scale.pick(1, EPOCHS)
    return trained(
        f"reviews-kim{EMBEDDING}x{FILTERS}-hidden{hidden}-{epochs}epochs-{len(data.train.labels)}sentences-seed{seed}",
        partial(sentiment_network, len(data.vocabulary), hidden, seed=seed),
        lambda network: fit_sentiment(network, *data.train, seed=seed, epochs=epochs),
        evaluate=lambda network: accuracy(network, *data.test, batch=250),
        floor=scale.pick(0.0, FLOOR),
    )


def fit_sentiment(network: nn.Module, words: Tensor, labels: Tensor, *, seed: int, epochs: int = EPOCHS) -> None:
    """Fit with Adam, cross-entropy and a one-cycle schedule; the same seed gives the same weights."""
    optimizer = torch.optim.Adam(network.parameters())
    steps = epochs * -(-len(words) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps)
    network.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for dropout and the order of sentences
        for _ in trange(epochs, desc="training on sentences", unit="epoch"):
            for rows in torch.randperm(len(words)).split(BATCH):
                optimizer.zero_grad()
                cross_entropy(network(_trimmed(words[rows])), labels[rows]).backward()
                optimizer.step()
                schedule.step()


def _trimmed(words: Tensor) -> Tensor:
    """Cut padding at the end of a batch: windows of padding alone are equal, so one suffices for the maximum."""
    end = int((words != PAD).any(dim=0).nonzero().max()) + 1
    return words[:, : end + max(WIDTHS)]


if __name__ == "__main__":
    for number in range(5):
        result = trained_reader(int(sys.argv[1]), number)
        print(f"hidden {sys.argv[1]} seed {number}: accuracy {result.accuracy:.3f} in {result.seconds:.0f} s")
