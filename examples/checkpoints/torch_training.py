"""A training with PyTorch that goes on where it was: model and optimizer in a file, epoch and loss in the state."""

from dataclasses import dataclass

import torch

from avtomatika_worker import TaskContext, Worker

worker = Worker(worker_type="train")


@dataclass
class Progress:
    epoch: int = 0
    best: float = float("inf")


@worker.skill(version="1")
def train(ctx: TaskContext, epochs: int, rate: float = 0.05) -> Progress:
    """Fit a line to a few points."""
    torch.manual_seed(0)
    x = torch.linspace(0, 1, 32).unsqueeze(1)
    y = 3 * x + 1
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    weights = ctx.files.path_to_sync("weights.pt")

    progress = ctx.checkpoint.load(Progress) or Progress()
    if progress.epoch:
        saved = torch.load(weights, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])

    for epoch in range(progress.epoch, epochs):
        ctx.raise_if_cancelled()
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        progress = Progress(epoch + 1, min(progress.best, loss.item()))
        if ctx.checkpoint.due:  # writing the file is what takes time
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, weights)
            ctx.checkpoint.save(progress, files=[weights])
    return progress
