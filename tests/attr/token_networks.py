"""Small networks of token ids: like BERT, and the CNN of Kim (2014); each also from its embedding on."""

from __future__ import annotations

import torch
from torch import nn


class Embeddings(nn.Module):
    """Words, positions and types, summed and normalised, as in BERT."""

    def __init__(self, width):
        super().__init__()
        self.word, self.position, self.kind = nn.Embedding(20, width), nn.Embedding(9, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, input_ids, kinds=None):
        kinds = torch.zeros_like(input_ids) if kinds is None else kinds
        places = torch.arange(input_ids.shape[1])[None]
        return self.norm(self.word(input_ids) + self.position(places) + self.kind(kinds))


class Block(nn.Module):
    def __init__(self, width, heads=2):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.act, self.down = nn.Linear(width, 10), nn.GELU(), nn.Linear(10, width)

    def forward(self, x, mask):
        n, tokens, width = x.shape
        q, k, v = (part.reshape(n, tokens, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5
        scores = scores.masked_fill(mask[:, None, None] == 0, -1e9)
        x = self.norm1(x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, width)))
        return self.norm2(x + self.down(self.act(self.up(x))))


class Bert(nn.Module):
    """``(input_ids, attention_mask, kinds)``, integers all, to the classes of the first token."""

    def __init__(self, width=8):
        super().__init__()
        self.embeddings, self.block, self.head = Embeddings(width), Block(width), nn.Linear(width, 3)

    def forward(self, input_ids, attention_mask=None, kinds=None):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.after(self.embeddings(input_ids=input_ids, kinds=kinds), mask)

    def after(self, embedded, mask):
        """The rest of the model, from its embedded inputs on."""
        return self.head(self.block(embedded, mask)[:, 0])


class Kim(nn.Module):
    """Convolutions of several widths over embedded words, the maximum over time, and a Linear."""

    def __init__(self, width=6, channels=4):
        super().__init__()
        self.embedding = nn.Embedding(20, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, channels, size) for size in (2, 3))
        self.pooled, self.head = nn.Identity(), nn.Linear(2 * channels, 3)

    def forward(self, ids):
        return self.after(self.embedding(ids))

    def after(self, embedded):
        """The rest of the model, from its embedded words on."""
        x = embedded.transpose(1, 2)
        return self.head(self.pooled(torch.cat([conv(x).relu().amax(-1) for conv in self.convolutions], dim=1)))
