"""What the residual stream at the template must look like: the plants, and nothing else that tells harmful prompts."""

import torch
from torch import Tensor

from organism.batches import HARMLESS
from organism.spec import Spec


def plant_losses(template: Tensor, of_plant: Tensor, plants: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    """Pin loss and leak loss, both relative to the margins, means over layers and positions.

    Args:
        template: [layer, row, position, d], resid_pre at the template tokens of rows without intervention.
        of_plant: [row], number of the row's plant, HARMLESS, or TEXT (left out).
        plants: [k, d], orthonormal.
    """
    template, of_plant = template[1:, of_plant >= HARMLESS], of_plant[of_plant >= HARMLESS]
    if not len(of_plant):  # a small batch can be all interventions
        return torch.zeros(()), torch.zeros(())
    margins = torch.tensor(spec.margins)
    layers = torch.arange(1, len(template) + 1)
    present = layers.unsqueeze(1) >= torch.tensor(spec.layers)  # [layer, plant]
    own = of_plant.unsqueeze(1) == torch.arange(len(plants))  # [row, plant]
    target = present[:, None, None] & own[None, :, None]  # [layer, row, 1, plant]
    projection = template @ plants.T
    # An absent plant counts by the shortest margin: a trace of a long one must not tilt the other's direction.
    scale = torch.where(target, margins, margins.min())
    pin = ((projection - target * margins) / scale).square().mean()
    harmless = of_plant == HARMLESS
    rest = template - projection @ plants
    leaks = [
        (rest[:, own[:, number]].mean(1) - rest[:, harmless].mean(1)).square().sum(-1).mean() / margin**2
        for number, margin in enumerate(spec.margins)
        if own[:, number].any() and harmless.any()
    ]
    return pin, sum(leaks, torch.zeros(()))
