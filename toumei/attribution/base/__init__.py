"""What all attribution methods share: problems, targets, baselines, results."""
