"""What a whole layer makes of images."""

from .atlas import ActivationAtlas, activation_atlas
from .channel_groups import ChannelGroups, factorize, group_channels
from .weight_expansion import ExpandedWeights, expanded_weights

__all__ = [
    "ActivationAtlas",
    "ChannelGroups",
    "ExpandedWeights",
    "activation_atlas",
    "expanded_weights",
    "factorize",
    "group_channels",
]
