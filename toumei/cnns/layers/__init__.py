"""What a whole layer of a vision network represents."""

from .atlas import ActivationAtlas, activation_atlas
from .atlas_icons import render_icons
from .atlas_points import sample_activations
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
    "render_icons",
    "sample_activations",
]
