"""Attribution: estimates of what patching would do, from gradients."""
