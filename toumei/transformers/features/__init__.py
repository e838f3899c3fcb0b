"""Features of activations: sparse autoencoders and transcoders, what they mean, and what they do."""

from .activation_source import ActivationSource
from .activation_store import ActivationStore
from .dictionary import SparseAutoencoder
from .evaluation import DictionaryEvaluation, Reconstruction, evaluate_dictionary, reconstruction
from .feature_table import FeatureTable, direct_logits, show_features
from .interventions import ablate_features, spliced, steer_by_feature
from .matching import FeatureMatches, match_features
from .saelens import load_saelens, save_saelens
from .settings import DictionarySettings
from .superposition import (
    Superposition,
    feature_dimensionality,
    interference,
    polysemanticity,
    train_superposition,
)
from .synthetic import SyntheticFeatures
from .training import train_dictionary
from .training_result import DictionaryTraining

__all__ = [
    "ActivationSource",
    "ActivationStore",
    "DictionaryEvaluation",
    "DictionarySettings",
    "DictionaryTraining",
    "FeatureMatches",
    "FeatureTable",
    "Reconstruction",
    "SparseAutoencoder",
    "Superposition",
    "SyntheticFeatures",
    "ablate_features",
    "direct_logits",
    "evaluate_dictionary",
    "feature_dimensionality",
    "interference",
    "load_saelens",
    "match_features",
    "polysemanticity",
    "reconstruction",
    "save_saelens",
    "show_features",
    "spliced",
    "steer_by_feature",
    "train_dictionary",
    "train_superposition",
]
