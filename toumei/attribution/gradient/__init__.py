"""Attribution by gradients."""
