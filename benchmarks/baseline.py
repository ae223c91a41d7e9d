"""The published procedure, written plainly: what the engine is measured against.

One sequence at a time through each block, twice (dense, then pruned); statistics gathered by
hooks; a Python loop over the groups of N:M; SparseGPT's columns one by one in PyTorch. The whole
model is loaded first. Written from the papers' algorithms; see docs/methods.md.
"""

import time

import torch
from torch import Tensor, nn


class _Norms:
    """Sum of squares of each input channel, updated one sequence at a time."""

    def __init__(self, linear: nn.Linear) -> None:
        self.squares = torch.zeros(linear.in_features, device=linear.weight.device)
        self.samples = 0

    def add(self, x: Tensor) -> None:
        x = x.reshape(-1, x.shape[-1]).t().float()
        self.squares *= self.samples / (self.samples + 1)
        self.samples += 1
        self.squares += torch.norm(x, p=2, dim=1) ** 2 / self.samples


class _Hessian:
    """H = mean of 2·x·xᵀ in float32, updated one sequence at a time."""

    def __init__(self, linear: nn.Linear) -> None:
        n = linear.in_features
        self.matrix = torch.zeros((n, n), device=linear.weight.device)
        self.samples = 0

    def add(self, x: Tensor) -> None:
        x = x.reshape(-1, x.shape[-1]).t()
        self.matrix *= self.samples / (self.samples + 1)
        self.samples += 1
        x = (2 / self.samples) ** 0.5 * x.float()
        self.matrix += x.matmul(x.t())


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def prune_block(
    block: nn.Module, inputs: Tensor, kwargs: dict, method: str, pattern: str
) -> tuple[Tensor, float]:
    """Prune one block; returns its outputs [sequences, length, hidden] and the seconds it took."""
    synchronise()
    started = time.perf_counter()
    mlp = block.mlp
    linears = {"gate": mlp.gate_proj, "up": mlp.up_proj, "down": mlp.down_proj}
    collector = _Hessian if method == "sparsegpt" else _Norms
    seen = {name: collector(linear) for name, linear in linears.items()}
    hooks = [
        linear.register_forward_hook(lambda _m, args, _o, name=name: seen[name].add(args[0].data))
        for name, linear in linears.items()
    ]
    outputs = torch.zeros_like(inputs)
    for j in range(len(inputs)):
        outputs[j] = block(inputs[j].unsqueeze(0), **kwargs)
    for hook in hooks:
        hook.remove()
    for name, linear in linears.items():
        if method == "sparsegpt":
            _sparsegpt(linear, seen[name].matrix, pattern)
        else:
            _by_score(linear, name, seen, method, pattern)
    for j in range(len(inputs)):
        outputs[j] = block(inputs[j].unsqueeze(0), **kwargs)
    synchronise()
    return outputs, time.perf_counter() - started


def _by_score(
    linear: nn.Linear, name: str, seen: dict[str, _Norms], method: str, pattern: str
) -> None:
    weight = linear.weight.data
    along_output = method == "dass" and name != "down"
    if along_output:
        score = weight.abs() * (seen["down"].squares ** 0.25).reshape(-1, 1)
    else:
        score = weight.abs() * torch.sqrt(seen[name].squares.reshape(1, -1))
    pruned = torch.zeros_like(score, dtype=torch.bool)
    if pattern == "u50":
        dim = 0 if along_output else -1
        order = torch.sort(score, dim=dim, stable=True)[1]
        half = order[: order.shape[0] // 2] if along_output else order[:, : order.shape[1] // 2]
        pruned.scatter_(dim, half, True)
    else:
        kept, group = (int(part) for part in pattern.split("of"))
        drop = group - kept
        if along_output:
            for i in range(0, score.shape[0], group):
                part = score[i : i + group].float()
                pruned.scatter_(0, i + torch.topk(part, drop, dim=0, largest=False)[1], True)
        else:
            for i in range(0, score.shape[1], group):
                part = score[:, i : i + group].float()
                pruned.scatter_(1, i + torch.topk(part, drop, dim=1, largest=False)[1], True)
    weight[pruned] = 0


def _sparsegpt(linear: nn.Linear, hessian: Tensor, pattern: str) -> None:
    weight = linear.weight.data.clone().float()
    dead = torch.diag(hessian) == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    index = torch.arange(len(hessian), device=weight.device)
    hessian[index, index] += 0.01 * torch.mean(torch.diag(hessian))
    hessian = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(hessian, upper=True)
    kept, group = (int(p) for p in pattern.split("of")) if "of" in pattern else (0, 0)
    for start in range(0, weight.shape[1], 128):
        stop = min(start + 128, weight.shape[1])
        part = weight[:, start:stop].clone()
        new, errors = torch.zeros_like(part), torch.zeros_like(part)
        corner = factor[start:stop, start:stop]
        if group:
            mask = torch.zeros_like(part, dtype=torch.bool)
        else:
            score = part**2 / torch.diag(corner).reshape(1, -1) ** 2
            mask = score <= torch.sort(score.flatten())[0][score.numel() // 2]
        for i in range(stop - start):
            column, pivot = part[:, i], corner[i, i]
            if group and i % group == 0:
                pivots = torch.diag(corner)[i : i + group].reshape(1, -1)
                score = part[:, i : i + group] ** 2 / pivots**2
                lowest = torch.topk(score, group - kept, dim=1, largest=False)[1]
                mask.scatter_(1, i + lowest, True)
            value = column.clone()
            value[mask[:, i]] = 0
            new[:, i] = value
            error = (column - value) / pivot
            part[:, i:] -= error.unsqueeze(1).matmul(corner[i, i:].unsqueeze(0))
            errors[:, i] = error
        weight[:, start:stop] = new
        weight[:, stop:] -= errors.matmul(factor[start:stop, stop:])
    linear.weight.data = weight.to(linear.weight.dtype)
